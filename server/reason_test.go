package server

import (
	"regexp"
	"testing"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

func TestReasonWords(t *testing.T) {
	seen := map[string]Reason{}
	for r := range numReasons {
		word := r.String()
		if other, twice := seen[word]; twice || !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(word) ||
			word == "unknown" {
			t.Errorf("reason %d has the word %q (also that of %d: %v)", r, word, other, twice)
		}
		seen[word] = r
		if c := r.Code(); c < 3000 || c > 3999 || c.String() == "unknown" {
			t.Errorf("%s has the code %d, which codec/SPEC.md does not know", word, c)
		}
	}
	// Where a reason is one of the protocol's own, it has that code to itself.
	codes := map[codec.Code]Reason{}
	for r := range numReasons {
		if c := r.Code(); c != codec.CodePeerClosed && c != codec.CodeInternalError && c != codec.CodeOverloaded {
			if other, twice := codes[c]; twice {
				t.Errorf("%s and %s share the code %d", r, other, c)
			}
			codes[c] = r
		}
	}
	if numReasons.String() != "unknown" || numReasons.Code() != codec.CodeInternalError {
		t.Errorf("a reason that does not exist: %s, %d", numReasons, numReasons.Code())
	}
	for r, want := range map[Reason]codec.Code{
		PeerClosed: 3000, Draining: 3001, Internal: 3004, SlowConsumer: 3008, WriteError: 3009, IdleTimeout: 3012,
		BeatTooOften: 3021, BadToken: 3500, ProtocolError: 3501, Incomplete: 3502,
		FrameTooLarge: 3511, BadVersion: 3512,
	} {
		if r.Code() != want {
			t.Errorf("%s has the code %d, want %d", r, r.Code(), want)
		}
	}
	words := map[string]bool{}
	for _, w := range averteds {
		if w == "" || words[w] {
			t.Errorf("%q is no label, or one twice", w)
		}
		words[w] = true
	}
}

// TestOneVocabulary: over the reasons of closed and of refused connections and
// the codes, one word means one thing, and one thing has one word.
func TestOneVocabulary(t *testing.T) {
	codes := map[string]codec.Code{}
	for c := codec.Code(3000); c < 4000; c++ {
		if word := c.String(); word != "unknown" {
			codes[word] = c
		}
	}
	words := map[string]codec.Code{}
	add := func(word string, code codec.Code) {
		if _, twice := words[word]; twice {
			t.Errorf("two reasons have the word %s", word)
		}
		words[word] = code
		if c, known := codes[word]; known && c != code {
			t.Errorf("%s has the code %d, but is the word of %d", word, code, c)
		}
	}
	for r := range numReasons {
		add(r.String(), r.Code())
	}
	for _, c := range admission.Causes() {
		add(c.String(), c.Code())
	}
	for word, code := range words { // a code that is here has its own word here too, beside finer ones
		if _, ok := words[code.String()]; !ok && code != codec.CodeRateLimited {
			t.Errorf("%s has the code %d, but there is no reason %s", word, code, code)
		}
	}
	// Refused connections name what was limited: 3013 is address_rate or flapping.
	if words["address_rate"] != codec.CodeRateLimited || words["flapping"] != codec.CodeRateLimited {
		t.Error("3013 is used for something else")
	}
}
