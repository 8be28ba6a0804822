package auth_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"heartwheel/client"
	"heartwheel/codec"
	"heartwheel/internal/auth"
	"heartwheel/server"
)

// A door is a handler that asks an Authenticator about each HELLO.
type door struct {
	server.Echo
	auth *auth.Authenticator
}

func (d door) Hello(c *server.Conn, h codec.Hello) error {
	r := auth.Request{Token: h.Token, Client: c.ID(), Transport: "tcp", Protocol: "heartwheel", Encoding: "binary"}
	if _, ok, err := d.auth.CheckNow(r); ok {
		return err
	}
	if !d.auth.Check(r, func(_ auth.Identity, err error) { _ = c.AnswerHello(err) }) {
		return auth.ErrUnavailable
	}
	return server.ErrHelloPending
}

// TestWithServer: the codes of an Authenticator reach clients, and a hook that takes
// its time holds up no other connection of the loop.
func TestWithServer(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer slow":
			asked <- struct{}{}
			<-answer
			fallthrough
		case "Bearer good":
			_, _ = io.WriteString(w, `{"result":{"user":"56"}}`)
		case "Bearer bad":
			_, _ = io.WriteString(w, `{"disconnect":{"code":4501,"reason":"account closed"}}`)
		case "Bearer unlucky":
			w.WriteHeader(http.StatusBadGateway)
		default:
			_, _ = io.WriteString(w, `{"error":{"code":1000,"message":"who are you"}}`)
		}
	}))
	defer hook.Close()
	a, err := auth.NewAuthenticator(auth.Config{Mode: auth.Hook, HookURL: hook.URL, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s, err := server.New(server.Config{Listen: []string{"tcp://127.0.0.1:0"}, Loops: 1,
		Logger: slog.New(slog.DiscardHandler)}, door{auth: a})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	dial := func(token string) (*client.Client, error) {
		return client.Dial(ctx, "tcp://"+s.Addrs()[0].String(), client.Config{Token: token})
	}
	good, err := dial("good")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	slow := make(chan error, 1)
	go func() {
		c, err := dial("slow")
		if err == nil {
			_, err = c.Beat(ctx)
			_ = c.Close()
		}
		slow <- err
	}()
	<-asked
	if _, err := good.Beat(ctx); err != nil {
		t.Errorf("beside a slow hook: %v", err)
	}
	close(answer)
	if err := <-slow; err != nil {
		t.Errorf("slow: %v", err)
	}
	for token, want := range map[string]client.CodeError{
		"bad":     {Code: 4501, Reason: "account closed"},
		"unlucky": {Code: codec.CodeOverloaded, Reason: auth.ErrUnavailable.Text},
		"other":   {Code: codec.CodeBadToken, Reason: "who are you"},
		"a b":     {Code: codec.CodeBadToken, Reason: auth.ErrBadToken.Text},
	} {
		_, err := dial(token)
		var got *client.CodeError
		if !errors.As(err, &got) || *got != want {
			t.Errorf("%q: %v", token, err)
		}
	}
}
