package report

import (
	"strconv"
	"strings"
	"unicode"
)

// escape makes one line of text safe to print: a server and a file of others may have
// sequences in it that control a terminal, or lines that look like the report's.
func escape(text string) string {
	if strings.IndexFunc(text, unprintable) < 0 && strings.ToValidUTF8(text, "") == text {
		return text
	}
	b := &strings.Builder{}
	for i, r := range text {
		switch {
		case r == unicode.ReplacementChar && text[i] != "\ufffd"[0]:
			b.WriteString(`\x` + strconv.FormatUint(uint64(text[i]), 16))
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) && r != '\u00a0' && r != '\u202f' }
