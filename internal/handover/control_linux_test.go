package handover

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestControl has both ends of a control socket in this process: drain requests,
// connections, the final scrape, and the end.
func TestControl(t *testing.T) {
	w, theirs, err := NewWorkerControl()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newControl("3/5/2/127.0.0.1:9090", theirs)
	theirs.Close()
	if err != nil || c.Index != 3 || c.Count != 5 || c.Loops != 2 || c.Ops != "127.0.0.1:9090" {
		t.Fatalf("%+v, %v", c, err)
	}
	if name := ControlName(c.Index, c.Count, c.Loops, c.Ops); name != workerScheme+"3/5/2/127.0.0.1:9090" {
		t.Errorf("its name is %s", name)
	}
	c.Start()
	for i := range 3 {
		answered := make(chan error, 1)
		go func() {
			conn, err := c.Accept()
			if err == nil {
				_, err = fmt.Fprint(conn, i)
				conn.Close()
			}
			answered <- err
		}()
		conn, err := w.Dial()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		conn.Close()
		if string(text) != fmt.Sprint(i) || err != nil || <-answered != nil {
			t.Errorf("through a passed connection came %q, %v", text, err)
		}
	}
	for range 2 { // the second changes nothing
		if err := w.Drain(); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-c.Drains(); r.Orphaned {
		t.Error("a drain request counts as the supervisor's end")
	}
	c.Close()
	if _, err := c.Accept(); err != net.ErrClosed {
		t.Errorf("Accept after Close returns %v", err)
	}
	scraped := make(chan struct{})
	go w.Serve(func() { close(scraped) })
	begun := time.Now()
	c.FinalScrape()
	if time.Since(begun) > ScrapeTimeout {
		t.Error("it waited for a scrape that was done")
	}
	<-scraped
	<-c.exit
	for len(c.Drains()) > 0 {
		<-c.Drains()
	}
	w.Close()
	if r := <-c.Drains(); !r.Orphaned {
		t.Error("the supervisor's end counts as a drain request")
	}
	for _, text := range []string{"", "1", "1/2", "1/2/off", "x/2/1/off", "1/y/1/off", "1/2/z/off"} {
		if _, err := newControl(text, os.Stdin); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestCountIsShared(t *testing.T) {
	f, c, err := NewCount(4)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := mapCount(f, 3)
	if err != nil {
		t.Fatal(err)
	}
	if c.Total() != 0 || other.Total() != 0 {
		t.Error("it does not begin with zero")
	}
	if _, err := mapCount(f, 4); err == nil {
		t.Error("slot 4 of 4 was accepted")
	}
}
