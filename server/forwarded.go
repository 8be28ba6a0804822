package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"heartwheel/internal/admission"
	"heartwheel/internal/edge/websocket"
)

// A proxy that speaks HTTP names the client of a request for a WebSocket in
// X-Forwarded-For, or in Forwarded (RFC 7239). The connection is that of the client
// then: as with a PROXY header, there is one address, and limits, bans, logs and the
// handler see it. Such a connection is admitted without an address and bound to the
// client's with its request.

// trusts reports whether one of trusted has ip.
func trusts(trusted []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// clientOf returns the client that the headers of a proxy name: the rightmost address
// that is not trusted, as what is left of it was written by others. Without a header
// it is peer, and where all are trusted the leftmost. What cannot be read ends the list.
func clientOf(h http.Header, trusted []netip.Prefix, peer netip.Addr) (netip.Addr, error) {
	xff, std := h["X-Forwarded-For"], h["Forwarded"]
	client := rightmost(xff, trusted, peer, func(s string) string { return s })
	if len(std) == 0 {
		return client, nil
	}
	other := rightmost(std, trusted, peer, forwardedFor)
	switch {
	case len(xff) == 0:
		return other, nil
	case other != client: // one of them may be the client's own
		return netip.Addr{}, fmt.Errorf("X-Forwarded-For and Forwarded name %s and %s; "+
			"let the proxy remove one of them", client, other)
	}
	return client, nil
}

func rightmost(lines []string, trusted []netip.Prefix, peer netip.Addr, node func(string) string) netip.Addr {
	elements := strings.Split(strings.Join(lines, ","), ",")
	client := peer
	for _, element := range slices.Backward(elements) {
		ip, ok := parseNode(node(strings.TrimSpace(element)))
		if !ok {
			break
		}
		if client = ip; !trusts(trusted, ip) {
			break
		}
	}
	return client
}

// parseNode reads an address, with or without brackets and port.
func parseNode(text string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return ip.Unmap().WithZone(""), err == nil
}

// forwardedFor returns what for= says in an element of Forwarded.
func forwardedFor(element string) string {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(name, "for") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// bindForwarded makes c, whose request is r, a connection of the client that a trusted
// proxy names. It reports false after it has refused the client.
func (l *loop) bindForwarded(c *Conn, r *websocket.Request) bool {
	trusted := l.edges[c.edge].upgrade.trusted
	if len(trusted) == 0 {
		return true
	}
	addr, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok || !trusts(trusted, ipOf(addr)) {
		return true
	}
	client, err := clientOf(r.HTTP.Header, trusted, ipOf(addr))
	if err != nil {
		l.answerHTTP(c, websocket.Refuse(http.StatusBadRequest, err.Error(), 0))
		return false
	}
	if client != ipOf(addr) {
		*addr = net.TCPAddr{IP: client.AsSlice()}
	}
	refusal := l.bind(&c.ticket, addr) // a lock, as at the end of a connection
	if !refusal.Refused() {
		return true
	}
	l.sendRaw(c, httpRefusal(refusal))
	c.state, c.reason = stateFlushing, RateLimited
	return false
}

// bind counts a connection for the address of its client, and logs why not. Safe for
// concurrent use.
func (s *Server) bind(t *admission.Ticket, client *net.TCPAddr) admission.Refusal {
	refusal := s.admission.Bind(t, ipOf(client))
	if refusal.Refused() {
		s.logRefusal(refusal.Cause, client)
	}
	return refusal
}
