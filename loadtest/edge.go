package loadtest

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"heartwheel/internal/address"
	"heartwheel/internal/edge/websocket"
	"heartwheel/loadtest/engine"
)

// Schemes are those of a target.
var Schemes = []string{address.TCP, address.TLS, address.WS, address.WSS}

// The words of length-order, and the one of length-strip for all up to the field.
const (
	orderBig    = "big"
	orderLittle = "little"
	stripHeader = "header"
)

// derive fills in what follows from the target and from other settings.
func (p *Plan) derive() {
	p.Scheme = engine.SchemeTCP
	if a, err := address.Parse(p.Target, Schemes...); err == nil {
		p.Scheme = a.Scheme
		if p.ServerName == "" && p.HasTLS() {
			p.ServerName, _, _ = strings.Cut(a.Host, "%")
		}
		p.Request.Host, p.Request.Path = a.HostPort(), a.Path
		if p.Scheme == address.WS && a.Port == 80 || p.Scheme == address.WSS && a.Port == 443 {
			p.Request.Host = strings.TrimSuffix(a.HostPort(), ":"+strconv.Itoa(int(a.Port)))
		}
	}
	if p.Frame == "" {
		p.Frame = frameEmpty
		if p.HasWebSocket() {
			p.Frame = framePing // where the server beats, it does not answer empty frames
		}
	}
	p.Framing.Little = p.Order == orderLittle
	p.Framing.Answer = p.Framing.Beat
	if p.Answer != nil {
		p.Framing.Answer = *p.Answer
	}
}

// targetText is the target as its address was found.
func (p *Plan) targetText(at netip.AddrPort) string {
	a := p.Scheme + "://" + at.String()
	if p.HasWebSocket() {
		a += p.Request.Path
	}
	return a
}

func (p *Plan) validateEdge(wrong wrongFunc) {
	if !p.HasTLS() {
		for _, s := range []struct {
			key   string
			value any
			given bool
		}{
			{"ca", p.CA, p.CA != ""}, {"insecure", p.Insecure, p.Insecure}, {"cert", p.Cert, p.Cert != ""},
			{"key", p.Key, p.Key != ""}, {"server-name", p.ServerName, p.ServerName != ""},
		} {
			if s.given {
				wrong(s.key, s.value, "is for a target with tls:// or wss://; leave it out, or write such a target")
			}
		}
	}
	switch {
	case p.Cert != "" && p.Key == "":
		wrong("cert", p.Cert, "goes with key; write both")
	case p.Cert == "" && p.Key != "":
		wrong("key", p.Key, "goes with cert; write both")
	}
	if p.CA != "" && p.Insecure {
		wrong("insecure", p.Insecure, "contradicts ca, with which certificates are verified; leave one out")
	}
	if len(p.Request.Header) > 0 && !p.HasWebSocket() {
		wrong("header", showHeader(p.Request.Header[0]),
			"is for a target with ws:// or wss://; leave it out, or write such a target")
	}
	f := &p.Framing
	if f.Native() {
		if f.Beat != "" || p.Answer != nil || f.Delimiter != "" {
			wrong("framing", f.Kind, "has no delimiter and beats of its own; leave them out, or write another framing")
		}
		return
	}
	switch {
	case p.HasWebSocket():
		wrong("framing", f.Kind, "is for a target with tcp:// or tls://, as WebSocket has frames of its own")
	case p.Hello:
		wrong("framing", f.Kind, "has no HELLO, which is of the native protocol; leave one out")
	case p.Frame == framePing:
		wrong("frame", p.Frame, "is of the native protocol; leave it out with framing "+f.Kind)
	}
	payload := 0
	if p.Mode == modeEcho {
		payload = p.Payload
	}
	if err := f.Validate(payload); err != nil {
		for line := range strings.Lines(err.Error()) {
			wrong("framing", f.Kind, "cannot work: %s", strings.TrimSpace(line))
		}
	}
	for i := range p.Faults {
		if kind := p.Faults[i].Kind; kind == "garbage" || kind == "oversize" {
			wrong("fault", p.Faults[i].Text, "is for the native protocol: with framing %s it may be a frame", f.Kind)
		}
	}
}

// parseMessage reads bytes written as in a string of Go, but for quotes.
func parseMessage(text string) (string, error) {
	var b []byte
	for text != "" {
		r, multibyte, rest, err := strconv.UnquoteChar(text, 0)
		switch {
		case err != nil:
			return "", errors.New(`has a \ that begins nothing; write \\ for itself, or \n, \x00 and so on`)
		case r < utf8.RuneSelf || !multibyte:
			b = append(b, byte(r))
		default:
			b = utf8.AppendRune(b, r)
		}
		text = rest
	}
	return string(b), nil
}

func formatMessage(message string) string {
	quoted := strconv.Quote(message)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func parseAnswer(text string) (*string, error) {
	message, err := parseMessage(text)
	return &message, err
}

func formatAnswer(message *string) string {
	if message == nil {
		return ""
	}
	return formatMessage(*message)
}

// parseHeader reads a line of a header.
func parseHeader(line string) (string, error) { return line, websocket.CheckHeader(line) }

// showHeader leaves out the value, which may be a token.
func showHeader(line string) string {
	name, _, _ := strings.Cut(line, ":")
	return name + ": (given)"
}
