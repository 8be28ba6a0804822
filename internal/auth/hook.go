package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"heartwheel/codec"
)

const (
	maxHookAnswer = 64 << 10 // bytes
	hookQuiet     = 10 * time.Second
	hookWhere     = "private addresses"

	// tokenExpired is the error by which Centrifugo's backends ask for a new token.
	tokenExpired = 109
)

// A hook asks an HTTP server who a client is, in the JSON of Centrifugo's connect
// proxy. Safe for concurrent use.
type hook struct {
	to      endpoint
	client  *http.Client
	headers []string
	calls   int // at one time
	timeout time.Duration
	outage  outage

	called, failures atomic.Uint64
}

func newHook(c Config) (*hook, error) {
	to, err := parseEndpoint("HookURL", c.HookURL, private, hookWhere)
	if err != nil {
		return nil, err
	}
	h := &hook{to: to, headers: c.HookHeaders, calls: c.Workers, timeout: c.Timeout,
		outage: outage{log: c.Logger, what: "the hook", quiet: hookQuiet}}
	h.client = &http.Client{
		Transport: newTransport(to, private, hookWhere, c.Workers, c.Timeout),
		// A token is not sent to where an answer says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h, nil
}

// serves reports whether h is what c asks for.
func (h *hook) serves(c Config) bool {
	return h.to.String() == c.HookURL && slices.Equal(h.headers, c.HookHeaders) && h.calls == c.Workers &&
		h.timeout == c.Timeout
}

// ownHeaders are those of a request to the hook. They are not passed on.
var ownHeaders = []string{"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type",
	"Expect", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// checkHeaders returns everything that is wrong with HookHeaders.
func checkHeaders(names []string) error {
	var wrong []error
	for _, name := range names {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }):
			wrong = append(wrong, fmt.Errorf("auth: HookHeaders has %.100q, which is no header", name))
		case slices.Contains(ownHeaders, canonical), strings.HasPrefix(canonical, "Sec-Websocket-"),
			strings.HasPrefix(canonical, "Proxy-"):
			wrong = append(wrong, fmt.Errorf("auth: HookHeaders has %s, which cannot be passed on", canonical))
		}
	}
	return errors.Join(wrong...)
}

// A hookRequest is the body of a request. Names are Centrifugo's.
type hookRequest struct {
	Client    string          `json:"client"`
	Transport string          `json:"transport"`
	Protocol  string          `json:"protocol"`
	Encoding  string          `json:"encoding"`
	Name      string          `json:"name,omitempty"`
	Version   string          `json:"version,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
}

// A hookAnswer is the body of an answer.
type hookAnswer struct {
	Result *struct {
		User     *string         `json:"user"`
		ExpireAt int64           `json:"expire_at"` // Unix seconds; 0: never
		Info     json.RawMessage `json:"info"`
		Data     json.RawMessage `json:"data"`
		Channels []string        `json:"channels"`
	} `json:"result"`
	Error *struct {
		Code      uint32 `json:"code"`
		Message   string `json:"message"`
		Temporary bool   `json:"temporary"`
	} `json:"error"`
	Disconnect *struct {
		Code   uint32 `json:"code"`
		Reason string `json:"reason"`
	} `json:"disconnect"`
}

// ask returns who a client is. If the hook does not say so in time, the error wraps
// ErrUnavailable; if it refuses, the code that it chose.
func (h *hook) ask(ctx context.Context, r Request) (Identity, error) {
	if strings.ContainsFunc(r.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return Identity{}, refuse(ErrBadToken, errors.New("it is not ASCII, or has spaces"))
	}
	h.called.Add(1)
	body, err := h.post(ctx, r)
	var id Identity
	if err == nil {
		id, err = parseAnswer(body)
	}
	if !errors.As(err, new(*refusal)) && err != nil {
		h.failures.Add(1)
		if !errors.Is(ctx.Err(), context.Canceled) {
			h.outage.failed(fmt.Errorf("%s: %w", h.to.name, err))
		}
		return Identity{}, refuse(ErrUnavailable, fmt.Errorf("hook: %w", err))
	}
	h.outage.worked()
	return id, err
}

// post sends one request, and returns the body of an answer with status 200.
func (h *hook) post(ctx context.Context, r Request) ([]byte, error) {
	body, err := json.Marshal(hookRequest{r.Client, r.Transport, r.Protocol, r.Encoding, r.Name, r.Version, r.Data})
	if err != nil {
		return nil, refuse(ErrBadToken, errors.New("data is not JSON"))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, cause(err)
	}
	for _, name := range h.headers {
		name = http.CanonicalHeaderKey(name)
		if values := r.Header[name]; len(values) > 0 {
			request.Header[name] = values
		}
	}
	request.Header.Set("Content-Type", "application/json")
	if r.Token != "" {
		request.Header.Set("Authorization", "Bearer "+r.Token)
	}
	request.Header.Del("X-Forwarded-For") // of the client
	if r.RemoteAddr.IsValid() {
		request.Header.Set("X-Forwarded-For", r.RemoteAddr.Unmap().String())
	}
	// It may be sent again if the hook has closed a connection that was kept. The
	// header itself is not sent.
	request.Header["Idempotency-Key"] = []string{}
	response, err := h.client.Do(request)
	if err != nil {
		return nil, cause(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", response.Status)
	}
	b, err := readBody(response.Body, maxHookAnswer)
	if err != nil {
		return nil, cause(err)
	}
	return b, nil
}

// parseAnswer returns what an answer says. An error that is not a refusal means that
// it says nothing.
func parseAnswer(body []byte) (Identity, error) {
	var a hookAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return Identity{}, errors.New("the answer is not in JSON, or a member has another type")
	}
	switch {
	case a.Disconnect != nil:
		code := codec.Code(codec.CodeBadToken)
		if c := a.Disconnect.Code; c >= 3000 && c < 5000 { // those that a CLOSE may carry
			code = codec.Code(c)
		}
		return Identity{}, refuse(byHook(code, a.Disconnect.Reason), fmt.Errorf("disconnect %d", a.Disconnect.Code))
	case a.Error != nil:
		code := codec.Code(codec.CodeBadToken)
		switch {
		case a.Error.Temporary:
			code = codec.CodeOverloaded
		case a.Error.Code == tokenExpired:
			code = codec.CodeTokenExpired
		}
		return Identity{}, refuse(byHook(code, a.Error.Message), fmt.Errorf("error %d", a.Error.Code))
	case a.Result == nil:
		return Identity{}, errors.New("the answer has no result, error or disconnect")
	case a.Result.User == nil: // an empty one is written, and means anonymous
		return Identity{}, errors.New("the result has no user")
	}
	r := a.Result
	id := Identity{User: *r.User, Info: given(r.Info), Data: given(r.Data), Channels: r.Channels}
	switch {
	case id.User != "" && !ValidUser(id.User):
		return Identity{}, errors.New("user has controls or is too long")
	case !validChannels(r.Channels):
		return Identity{}, errors.New("channels has a bad name")
	case r.ExpireAt < 0:
		return Identity{}, errors.New("expire_at is negative")
	case r.ExpireAt > 0:
		id.Expires = time.Unix(r.ExpireAt, 0)
		if !time.Now().Before(id.Expires) {
			return Identity{}, refuse(ErrExpired, fmt.Errorf("expire_at is %d", r.ExpireAt))
		}
	}
	return id, nil
}

// byHook is a reason that the hook chose.
func byHook(code codec.Code, text string) *codec.Error {
	if text == "" {
		text = "refused"
	}
	return &codec.Error{Code: code, Text: text}
}

// given is nil for a member that is null.
func given(m json.RawMessage) json.RawMessage {
	if string(m) == "null" {
		return nil
	}
	return m
}
