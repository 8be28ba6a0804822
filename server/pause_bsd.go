//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package server

// A readGate stops and resumes the reading of sockets.
//
// What Linux has and this lacks: reading goes on, and what arrives meanwhile is
// kept up to a limit, beyond which the connection is closed.
type readGate struct{}

func newReadGate(int) readGate { return readGate{} }

func (readGate) pause(int)  {}
func (readGate) resume(int) {}
