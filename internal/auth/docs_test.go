package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"heartwheel/codec"
)

// TestDocs: the JSON of docs/auth.md is what the hook gets, and does what it says.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/auth.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```json (\\w+)\n(.*?)^```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 5 {
		t.Errorf("%d blocks", len(blocks))
	}
	for _, b := range blocks {
		what, body := b[1], []byte(b[2])
		if what == "request" {
			var r hookRequest
			if err := json.Unmarshal(body, &r); err != nil {
				t.Fatal(err)
			}
			var got, want bytes.Buffer
			again, _ := json.Marshal(r)
			_ = json.Compact(&got, again)
			_ = json.Compact(&want, body)
			if got.String() != want.String() {
				t.Errorf("got %s, want %s", got.String(), want.String())
			}
			continue
		}
		id, err := parseAnswer(body)
		if what == "accepted" {
			if err != nil || id.User == "" || id.Expires.IsZero() || id.Info == nil || id.Data == nil ||
				id.Channels == nil {
				t.Errorf("%+v, %v", id, err)
			}
			continue
		}
		var e *codec.Error
		if code, _ := strconv.Atoi(what); !errors.As(err, &e) || int(e.Code) != code {
			t.Errorf("%s: %v", what, err)
		}
	}
	for value, text := range map[any]string{DefaultTimeout: "3s", DefaultQueue: "1024", DefaultHookCalls: "64",
		DefaultJWKSInterval: "10m0s", DefaultJWKSCooldown: "30s", maxJWKS: "1048576", maxKeys: "100", maxSameID: "4",
		DefaultMaxToken: "8192", maxHookAnswer: "65536", minSecret: "32", MaxUser: "255"} {
		if got := fmt.Sprint(value); got != text {
			t.Errorf("%s is %s now: docs/auth.md has it", text, got)
		}
	}
}
