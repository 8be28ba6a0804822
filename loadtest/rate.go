package loadtest

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"heartwheel/loadtest/engine"
)

// parseRate reads 500, 20k or 1k:20k.
func parseRate(text string) (engine.Rate, error) {
	first, second, ramp := strings.Cut(text, ":")
	if !ramp {
		second = first
	}
	var r engine.Rate
	for i, part := range []string{first, second} {
		v, err := parsePerSecond(part)
		if err != nil {
			return r, errors.New("is not a rate; write connects a second such as 500 or 20k, or a ramp such as 1k:20k")
		}
		*[]*float64{&r.From, &r.To}[i] = v
	}
	return r, nil
}

func parsePerSecond(text string) (float64, error) {
	factor := 1.0
	switch text = strings.ToLower(text); {
	case strings.HasSuffix(text, "k"):
		text, factor = strings.TrimSuffix(text, "k"), 1e3
	case strings.HasSuffix(text, "m"):
		text, factor = strings.TrimSuffix(text, "m"), 1e6
	}
	v, err := strconv.ParseFloat(text, 64)
	if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
		err = strconv.ErrRange
	}
	return v * factor, err
}
