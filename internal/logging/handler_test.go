package logging

import (
	"bytes"
	"log/slog"
	"regexp"
	"testing"
)

func TestHandler(t *testing.T) {
	var b bytes.Buffer
	h := NewHandler(&b)
	log := slog.New(h).With("worker", 3).WithGroup("g")
	h.Set("text", "warn")
	log.Info("quiet")
	h.Set("json", "debug")
	log.Debug("loud", "a", 1)
	h.Set("text", "info")
	log.Debug("quiet")
	log.Info("plain", "a", 2)
	want := regexp.MustCompile(`^\{"time":"[^"]+","level":"DEBUG","msg":"loud","worker":3,"g":\{"a":1\}\}\n` +
		`time=\S+ level=INFO msg=plain worker=3 g.a=2\n$`)
	if !want.MatchString(b.String()) {
		t.Errorf("%s", b.String())
	}
}
