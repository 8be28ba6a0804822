package settings

import (
	"strings"
	"testing"

	"heartwheel/internal/admission"
)

func TestWorkersFor(t *testing.T) {
	for _, c := range []struct {
		connections int
		descriptors uint64
		want        int
	}{
		{1, 20_000, 1}, {18_620, 20_000, 1}, {18_621, 20_000, 2}, {300_000, 20_000, 17}, {1_000_000, 20_000, 54},
		{1_000_000, 1_048_576, 2}, {1000, 64, 1000}, {1000, 10, 1000},
	} {
		got := WorkersFor(c.connections, c.descriptors)
		if got != c.want {
			t.Errorf("%d connections with %d descriptors need %d workers, want %d",
				c.connections, c.descriptors, got, c.want)
		}
		if room := admission.RoomForConnections(c.descriptors); room > 100 && got*room < c.connections {
			t.Errorf("%d connections do not fit into %d workers of %d", c.connections, got, room)
		}
	}
}

func TestWorkerCount(t *testing.T) {
	for _, c := range []struct {
		flags       map[string]string
		descriptors uint64
		want        int
		wrong       string
	}{
		{map[string]string{"workers": "56"}, 20_000, 56, ""},
		{map[string]string{"workers": "auto", "max-connections": "1m"}, 20_000, 54, ""},
		{map[string]string{"workers": "auto", "max-connections": "100m"}, 20_000, 0, "workers auto: 5371 workers need"},
		{map[string]string{"workers": "100"}, 512, 0,
			"workers 100: 100 workers need 964 descriptors in the supervisor, which may open 512; write at most " +
				"49, or raise"},
		{map[string]string{"workers": "49"}, 512, 49, ""},
		{map[string]string{"workers": "100", "listen": "tcp://:1,tcp://:2"}, 1024, 0, "write at most 96"},
		{map[string]string{"workers": "8", "memory-limit": "128MiB"}, 20_000, 0,
			"memory-limit 128MiB: is too little for 8 workers; write at least 256MiB"},
		{map[string]string{"workers": "8", "memory-limit": "off"}, 20_000, 8, ""},
		{map[string]string{"workers": "8", "memory-limit": "256MiB"}, 20_000, 8, ""},
	} {
		r, err := Resolve(FlagLayer(c.flags))
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.WorkerCount(c.descriptors)
		if n != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%v with %d descriptors: %d, %v; want %d, %s", c.flags, c.descriptors, n, err, c.want, c.wrong)
		}
	}
}
