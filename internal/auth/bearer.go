package auth

import (
	"net/http"
	"strings"
)

// SubprotocolPrefix begins a WebSocket subprotocol that is a token. Browsers can set
// no header, but they can offer subprotocols:
//
//	new WebSocket(url, ["heartwheel", "bearer." + token])
//
// They close the connection unless the server chooses one of those, which is not to
// be the token.
const SubprotocolPrefix = "bearer."

// TokenOf returns the token of a WebSocket request, empty if it has none: that of
// Authorization: Bearer, or else of a subprotocol, or else of the query's token, or
// else of the cookie with that name, if it is not empty. A cookie comes without the
// page's doing, so the origin must have been checked.
func TokenOf(r *http.Request, cookie string) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); strings.EqualFold(scheme, "bearer") && token != "" {
		return token
	}
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(line, ",") {
			token, ok := strings.CutPrefix(strings.TrimSpace(name), SubprotocolPrefix)
			if ok && token != "" {
				return token
			}
		}
	}
	if token := r.URL.Query().Get("token"); token != "" {
		return token
	}
	if cookie == "" {
		return ""
	}
	c, err := r.Cookie(cookie)
	if err != nil {
		return ""
	}
	return c.Value
}
