package server

// An edge is what the connections of a listener speak.
type edge struct {
	protocol Protocol
}
