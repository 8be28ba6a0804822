package auth

import (
	"net/http"
	"net/url"
	"testing"
)

func TestTokenOf(t *testing.T) {
	for _, c := range []struct {
		name, query, cookie, want string
		header                    http.Header
	}{
		{name: "none"},
		{name: "header", header: http.Header{"Authorization": {"bearer  a.b.c "}}, want: "a.b.c"},
		{name: "another scheme", header: http.Header{"Authorization": {"Basic x"}}},
		{name: "no scheme", header: http.Header{"Authorization": {"a.b.c"}}},
		{name: "nothing behind it", header: http.Header{"Authorization": {"Bearer "}}, query: "token=q", want: "q"},
		{name: "subprotocol", header: http.Header{"Sec-Websocket-Protocol": {"heartwheel", "x, bearer.a.b.c"}},
			want: "a.b.c"},
		{name: "empty subprotocol", header: http.Header{"Sec-Websocket-Protocol": {"bearer., bearer"}}},
		{name: "query", query: "x=1&token=a%2Bb", want: "a+b"},
		{name: "broken query", query: "%zz&token=a", want: "a"},
		{name: "cookie", header: http.Header{"Cookie": {"x=1; session=a.b"}}, cookie: "session", want: "a.b"},
		{name: "another cookie", header: http.Header{"Cookie": {"x=1"}}, cookie: "session"},
		{name: "cookie that is not asked for", header: http.Header{"Cookie": {"token=1"}}},
		{name: "all", query: "token=q", cookie: "session", want: "h", header: http.Header{"Authorization": {"Bearer h"},
			"Sec-Websocket-Protocol": {"bearer.s"}, "Cookie": {"session=c"}}},
		{name: "all but the header", query: "token=q", cookie: "session", want: "s", header: http.Header{
			"Sec-Websocket-Protocol": {"bearer.s"}, "Cookie": {"session=c"}}},
		{name: "query and cookie", query: "token=q", cookie: "session", want: "q", header: http.Header{
			"Cookie": {"session=c"}}},
	} {
		r := &http.Request{URL: &url.URL{RawQuery: c.query}, Header: c.header}
		if got := TokenOf(r, c.cookie); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
