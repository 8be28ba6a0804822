// Command progress waits for a slow server and redraws a progress line meanwhile: a
// blocking call of the client calls back, so that a single-threaded user interface
// can repaint. Then it cancels a second wait.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"heartwheel/client"
	"heartwheel/codec"
	"heartwheel/server"
)

// slow is a server.Handler that answers each DATA after 3 s.
type slow struct{}

func (slow) Open(*server.Conn)                 {}
func (slow) Close(*server.Conn, server.Reason) {}

func (slow) Frame(c *server.Conn, f codec.Frame) error {
	answer := bytes.Clone(f.Payload) // valid only until Frame returns
	time.AfterFunc(3*time.Second, func() {
		_ = c.Post(func(c *server.Conn) { _ = c.Send(codec.OpData, answer) }) // an error means that it has left
	})
	return nil
}

func main() {
	log.SetFlags(0)
	url := ""
	if len(os.Args) > 1 {
		url = os.Args[1]
	} else { // start one in this process
		s, err := server.New(server.Config{Listen: []string{"tcp://127.0.0.1:0"}}, slow{})
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Fatal(s.Run(context.Background())) }()
		url = "tcp://" + s.Addrs()[0].String()
	}

	var began time.Time
	redraws := 0
	c, err := client.Dial(context.Background(), url, client.Config{
		HeartbeatRate: 100 * time.Millisecond,
		OnHeartbeat: func() { // in the waiting goroutine: here, main's
			redraws++
			fmt.Printf("\r%c waiting for %.1f s ", `|/-\`[redraws%4], time.Since(began).Seconds())
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	wait := func(ctx context.Context, text string) (answer []byte, err error) {
		began = time.Now()
		if err = c.Send(ctx, []byte(text)); err == nil {
			answer, err = c.Receive(ctx, nil)
		}
		return answer, err
	}
	answer, err := wait(context.Background(), "hello")
	fmt.Printf("\ranswer %q, err %v, after %.1f s and %d redraws\n", answer, err, time.Since(began).Seconds(), redraws)

	ctx, cancel := context.WithCancel(context.Background())
	var cancelled time.Time // written before cancel, read after ctx has ended
	time.AfterFunc(time.Second, func() { cancelled = time.Now(); cancel() })
	answer, err = wait(ctx, "never mind")
	if err == nil { // a fast server, such as heartwheel serve
		fmt.Printf("\ranswer %q, before the cancel\n", answer)
		return
	}
	fmt.Printf("\rcancelled: %v, returned %.2f ms after the cancel\n", err, time.Since(cancelled).Seconds()*1000)
}
