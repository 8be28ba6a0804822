package websocket

import "unicode/utf8"

// utf8Check checks a text that comes in pieces. It finds an error at the first byte
// that makes one, as utf8.FullRune does.
type utf8Check struct {
	rest [utf8.UTFMax]byte // the beginning of a character
	n    uint8             // bytes of it
}

// add reports whether the text may still be UTF-8 with p at its end.
func (c *utf8Check) add(p []byte) bool {
	for c.n > 0 && len(p) > 0 {
		c.rest[c.n] = p[0]
		c.n++
		p = p[1:]
		if b := c.rest[:c.n]; utf8.FullRune(b) {
			if !utf8.Valid(b) {
				return false
			}
			c.n = 0
		}
	}
	cut := len(p)
	for i := len(p) - 1; i >= max(0, len(p)-utf8.UTFMax+1); i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				cut = i
			}
			break
		}
	}
	c.n += uint8(copy(c.rest[c.n:], p[cut:]))
	return utf8.Valid(p[:cut])
}

// end reports whether the text ends with a whole character, and begins another one.
func (c *utf8Check) end() bool {
	whole := c.n == 0
	c.n = 0
	return whole
}
