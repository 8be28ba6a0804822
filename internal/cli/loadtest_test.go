package cli

import (
	"testing"

	"heartwheel/internal/admission"
	"heartwheel/internal/settings"
)

func TestServeProcesses(t *testing.T) {
	for flags, want := range map[string]int{
		"": 1, "--profile iot": 1, "--workers 56 --profile iot": 56, "--profile iot --workers=8": 8, "--workers": 1,
		"--workers many": 1, "--workers 0": 1, "--workers 2k": 2000,
	} {
		if got := serveProcesses(flags, 1); got != want {
			t.Errorf("%q: %d processes, want %d", flags, got, want)
		}
	}
	descriptors, _ := admission.RaiseDescriptorLimit()
	got := serveProcesses("--workers auto --max-connections 100m", 100_000_000)
	if want := settings.WorkersFor(100_000_000, descriptors); got != want {
		t.Errorf("auto: %d processes, want %d", got, want)
	}
}
