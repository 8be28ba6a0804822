package server

import (
	"errors"
	"net"
	"os"
	"testing"
)

// One connection more than may be in its preface ends the oldest, and no other.
func TestPrefacesAreBounded(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := &prefaces{most: 2}
	var all []*preface
	for range 5 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer tc.Close()
		all = append(all, p.add(tc.(*net.TCPConn)))
	}
	for i, f := range all {
		crowded := p.remove(f)
		if want := i < 3; crowded != want {
			t.Errorf("connection %d was ended: %t, want %t", i, crowded, want)
		}
		if crowded {
			if _, err := f.tc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("connection %d: %v, want an expired deadline", i, err)
			}
		}
	}
	if n := p.list.Len(); n != 0 || p.list.Front() != nil {
		t.Errorf("%d are left", n)
	}
}
