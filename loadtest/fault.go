package loadtest

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"heartwheel/internal/config"
	"heartwheel/internal/wording"
	"heartwheel/loadtest/engine"
)

// A Fault is one --fault: KIND:SHARE@WHEN[,+OPTION].
type Fault = engine.Fault

func faultNames() []string {
	var names []string
	for _, k := range engine.FaultKinds {
		names = append(names, k.Name)
	}
	return names
}

const faultForm = "write KIND:SHARE@WHEN, such as silent:10%@30s or reset:500@1m"

// parseFault reads a Fault. The error says what to write instead.
func parseFault(text string) (Fault, error) {
	f := Fault{Text: text}
	main, options, _ := strings.Cut(text, ",")
	kind, rest, ok := strings.Cut(main, ":")
	if !ok { // such as herd@30s
		kind, _, _ = strings.Cut(kind, "@")
	}
	if _, known := engine.FaultKindByName(kind); !known {
		return f, fmt.Errorf("%q is not a fault; %s", kind, wording.Suggestion(kind, faultNames(), nil))
	}
	f.Kind = kind
	share, when, hasWhen := strings.Cut(rest, "@")
	if !ok || !hasWhen {
		if kind == engine.StallServer {
			return f, errors.New("lacks a part; write stall-server:HOW-LONG@WHEN, such as stall-server:5s@30s")
		}
		return f, errors.New("lacks a part; " + faultForm)
	}
	if err := parseShare(&f, share); err != nil {
		return f, err
	}
	at, err := config.ParseDuration(when)
	if err != nil {
		return f, fmt.Errorf("the time %q %w", when, err)
	}
	if at < 0 {
		return f, fmt.Errorf("the time %q is before the start; times count from the beginning of the hold phase", when)
	}
	f.At = at
	if options == "" {
		if strings.Contains(text, ",") {
			return f, errors.New("ends in a comma; after it comes an option such as +over=5s")
		}
		return f, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		if err := parseOption(&f, option); err != nil {
			return f, err
		}
	}
	return f, nil
}

func parseShare(f *Fault, share string) error {
	if f.Kind == engine.StallServer {
		d, err := config.ParseDuration(share)
		if err == nil && d <= 0 {
			err = errors.New("is not a time to be stopped for; write one such as 5s")
		}
		if err != nil {
			return fmt.Errorf("the duration %q %w", share, err)
		}
		f.For = d
		return nil
	}
	if percent, ok := strings.CutSuffix(share, "%"); ok {
		v, err := strconv.ParseFloat(percent, 64)
		if err != nil || math.IsNaN(v) || v <= 0 || v > 100 {
			return fmt.Errorf("the share %q is not one; write more than 0%% and at most 100%%", share)
		}
		f.Share = v / 100
		return nil
	}
	n, err := config.ParseNumber(share)
	if err != nil || n <= 0 {
		return fmt.Errorf("the share %q is not one; "+
			"write a part such as 10%%, or a number of connections such as 500", share)
	}
	f.Count = n
	return nil
}

func parseOption(f *Fault, option string) error {
	name, value, _ := strings.Cut(option, "=")
	switch name {
	case "+over":
		d, err := config.ParseDuration(value)
		if err == nil && d <= 0 {
			err = errors.New("must be more than zero")
		}
		if err != nil {
			return fmt.Errorf("the duration %q of +over %w", value, err)
		}
		f.Over = d
	case "+reconnect":
		f.Reconnect = true
	default:
		return fmt.Errorf("%q is not an option of a fault; there are +over=DURATION and +reconnect", option)
	}
	if k, _ := engine.FaultKindByName(f.Kind); f.Kind == engine.StallServer || k.Expect == engine.ExpectNothing &&
		f.Reconnect {
		return fmt.Errorf("%s has no option %s; leave it out", f.Kind, name)
	}
	return nil
}
