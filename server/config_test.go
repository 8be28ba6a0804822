package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

func TestConfigDefaults(t *testing.T) {
	c := Config{}.WithDefaults()
	want := Config{
		Listen: []string{"tcp://127.0.0.1:9000"}, Edge: Edge{Auth: Auth{Mode: "none"}},
		Beat: 15 * time.Second, BeatMin: time.Second, BeatMax: time.Minute,
		MaxFrame: 65536, Outbox: 256 << 10, Processes: 1,
		Drain: 30 * time.Second, Spread: 5 * time.Second, BanTime: 5 * time.Minute,
		Loops: runtime.GOMAXPROCS(0), Logger: slog.Default(),
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("defaults\n%+v, want\n%+v", c, want)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero value is refused: %v", err)
	}
	if again := c.WithDefaults(); !reflect.DeepEqual(again, c) {
		t.Errorf("defaults of the defaults\n%+v, want\n%+v", again, c)
	}
	if c := (Config{Timeout: 10 * time.Second}).WithDefaults(); c.Beat != 4*time.Second {
		t.Errorf("a timeout of 10s alone gives the beat %s, want 4s", c.Beat)
	}
	if c := (Config{Beat: 200 * time.Millisecond}).WithDefaults(); c.BeatMin != c.Beat || c.BeatMax != time.Minute {
		t.Errorf("a beat of 200ms gives the range %s to %s", c.BeatMin, c.BeatMax)
	}
	if c := (Config{Beat: 5 * time.Minute}).WithDefaults(); c.BeatMin != time.Second || c.BeatMax != c.Beat {
		t.Errorf("a beat of 5m gives the range %s to %s", c.BeatMin, c.BeatMax)
	}
	if c := (Config{MaxFrame: 1 << 20}).WithDefaults(); c.Outbox != 2<<20 {
		t.Errorf("a max-frame of 1 MiB gives an outbox of %d", c.Outbox)
	}
}

var (
	configField = regexp.MustCompile(`Config\.(\w+)`)
	// flagWord is what the command calls a field: --listen, max-frame or beat.
	flagWord = regexp.MustCompile(`--\w+|\b(beat|max|address|flap|ban|memory|write|require)-[a-z]+|` +
		`\b(beat|timeout|outbox) =`)
)

// wrongFields lists the fields that an error of Validate names.
func wrongFields(t *testing.T, err error) (fields []string) {
	t.Helper()
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrConfig) {
		t.Errorf("%v is not an ErrConfig", err)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is not a joined error", err)
	}
	for _, e := range joined.Unwrap() {
		var f *FieldError
		if !errors.As(e, &f) {
			t.Fatalf("%T is not a FieldError", e)
		}
		if f.Want == "" {
			t.Errorf("%s: it does not say what to set instead", f.Field)
		}
		if !strings.HasPrefix(e.Error(), "server: Config."+f.Field+" ") {
			t.Errorf("%q does not name Config.%s", e, f.Field)
		}
		for _, m := range configField.FindAllStringSubmatch(e.Error(), -1) {
			if _, ok := reflect.TypeFor[Config]().FieldByName(m[1]); !ok {
				t.Errorf("%q names the field %s, which does not exist", e, m[1])
			}
		}
		if word := flagWord.FindString(strings.ReplaceAll(e.Error(), strconv.Quote(f.Value), "")); word != "" {
			t.Errorf("%q has %q, which is no word of this package", e, word)
		}
		fields = append(fields, f.Field)
	}
	return fields
}

func TestConfigValidate(t *testing.T) {
	const sec = time.Second
	for _, test := range []struct {
		name string
		c    Config
		want string // wrong fields, in order
	}{
		{"zero", Config{}, ""},
		{"port 0 twice", Config{Listen: []string{"tcp://:0", "tcp://:0"}}, ""},
		{"address twice", Config{Listen: []string{"tcp://:9", "tcp://:9"}}, "Listen"},
		{"two bad addresses", Config{Listen: []string{"nonsense", "udp://:9"}}, "Listen Listen"},
		{"beat at its least", Config{Beat: MinBeat}, ""},
		{"beat too short", Config{Beat: MinBeat - 1}, "Beat BeatMin"},
		{"beat at its most", Config{Beat: MaxBeat}, ""},
		{"beat too long", Config{Beat: MaxBeat + 1}, "Beat BeatMax"},
		{"negative beat", Config{Beat: -sec}, "Beat BeatMin"},
		{"timeout of 1.5 beats", Config{Beat: 2 * sec, Timeout: 3 * sec}, ""},
		{"timeout below 1.5 beats", Config{Beat: 2 * sec, Timeout: 3*sec - 1}, "Timeout"},
		{"timeout below 1.5 of the default beat", Config{Beat: 15 * sec, Timeout: 22 * sec}, "Timeout"},
		{"timeout at its most", Config{Timeout: MaxTimeout, Beat: time.Hour}, ""},
		{"timeout for ever", Config{Timeout: MaxTimeout + 1, Beat: time.Hour}, "Timeout"},
		{"negative timeout", Config{Beat: sec, Timeout: -sec}, "Timeout"},
		{"beat-min above beat", Config{BeatMin: 16 * sec}, "BeatMin"},
		{"beat-max below beat", Config{BeatMax: 14 * sec}, "BeatMax"},
		{"beats", Config{Beats: 2}, "Beats"},
		{"beat-floor", Config{BeatFloor: 2 * sec}, "BeatFloor"},
		{"max-connections", Config{MaxConnections: -1}, "MaxConnections"},
		{"address limits", Config{AddressRate: 1e6, AddressBurst: 1, AddressMax: 1, FlapLimit: 1, BanTime: sec,
			Ban: []string{"192.0.2.0/24", "::1"}}, ""},
		{"negative address-rate", Config{AddressRate: -1}, "AddressRate"},
		{"address limits too high", Config{AddressRate: 1e6 + 1, AddressBurst: 1e6 + 1, AddressMax: 1e6 + 1,
			FlapLimit: 1e6 + 1},
			"AddressRate AddressBurst AddressMax FlapLimit"},
		{"address-burst alone", Config{AddressBurst: 5}, "AddressBurst"},
		{"ban-time too short", Config{BanTime: sec - 1}, "BanTime"},
		{"two bad bans", Config{Ban: []string{"192.0.2.1/24", "", "192.0.2.1"}}, "Ban Ban"},
		{"trust", Config{Trust: []string{"10.0.0.0/8", "::1"}, Ban: []string{"11.0.0.0/8", "::2"}}, ""},
		{"trusted and banned", Config{Ban: []string{"10.0.0.0/8", "::1"},
			Trust: []string{"10.1.0.0/16", "0.0.0.0/0", "::1", "192.0.2.1/24", "::2", "::ffff:10.0.0.1"}},
			"Trust Trust Trust Trust Trust"},
		{"max-frame at its least", Config{MaxFrame: 256}, ""},
		{"max-frame too small", Config{MaxFrame: 255}, "MaxFrame"},
		{"max-frame at its most", Config{MaxFrame: codec.MaxFrameLimit}, ""},
		{"max-frame too large", Config{MaxFrame: codec.MaxFrameLimit + 1}, "MaxFrame"},
		{"outbox just enough", Config{MaxFrame: 1000, Outbox: 2024}, ""},
		{"outbox too small", Config{MaxFrame: 1000, Outbox: 2023}, "Outbox"},
		{"write-stall", Config{WriteStall: sec/10 - 1}, "WriteStall"},
		{"drain", Config{Drain: -1}, "Drain"},
		{"spread", Config{Spread: time.Hour + 1}, "Spread"},
		{"loops", Config{Loops: 257}, "Loops"},
		{"everything at once", Config{
			Listen: []string{"x"}, Beat: 2 * time.Hour, Timeout: sec, BeatMin: 1, BeatMax: 2, Beats: 9,
			BeatFloor: -1, MaxConnections: -1,
			MaxFrame: 1, WriteStall: 1, Drain: 2 * time.Hour, Spread: -1, Loops: -1,
		}, "Listen Beat Timeout BeatMin BeatMax Beats BeatFloor MaxConnections MaxFrame WriteStall Drain Spread Loops"},
	} {
		if got := strings.Join(wrongFields(t, test.c.Validate()), " "); got != test.want {
			t.Errorf("%s: wrong are %q, want %q", test.name, got, test.want)
		}
	}
}

// A server is not started with wrong settings.
func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{Beat: 2 * time.Second, Timeout: 2 * time.Second}, Echo{}); !errors.Is(err, ErrConfig) {
		t.Errorf("T below 1.5 H: %v, want ErrConfig", err)
	}
	if _, err := New(Config{Listen: []string{"tcp://127.0.0.1:0"}}, nil); err == nil {
		t.Error("a server without a handler was made")
	}
}

func TestProfiles(t *testing.T) {
	for name, want := range map[string][2]time.Duration{ // codec/SPEC.md
		"standard": {15 * time.Second, 37500 * time.Millisecond},
		"fast":     {3 * time.Second, 7500 * time.Millisecond},
		"iot":      {time.Minute, 150 * time.Second},
	} {
		p, ok := ProfileByName(name)
		if !ok || p.Name != name || p.Beat != want[0] {
			t.Errorf("profile %s: %+v, %v", name, p, ok)
		}
		for _, timeout := range []time.Duration{0, want[1]} {
			c := Config{Beat: p.Beat, Timeout: timeout, BeatMin: p.BeatMin, BeatMax: p.BeatMax}
			if err := c.Validate(); err != nil {
				t.Errorf("profile %s: %v", name, err)
			}
			c = c.WithDefaults()
			if h, to := c.decide(0); h != want[0] || to != want[1] {
				t.Errorf("profile %s: decides %s and %s", name, h, to)
			}
		}
	}
	if _, ok := ProfileByName("slow"); ok {
		t.Error("a profile that does not exist was found")
	}
	if Profiles[0].Name != "standard" {
		t.Errorf("the default profile is %s", Profiles[0].Name)
	}
}

func TestDecide(t *testing.T) {
	const ms = time.Millisecond
	open := Config{Beat: 15000 * ms, BeatMin: 1000 * ms, BeatMax: 60000 * ms}
	fixed := open
	fixed.Timeout = 30000 * ms
	for _, test := range []struct {
		name                 string
		c                    Config
		asked, beat, timeout time.Duration
	}{
		{"none asked for", open, 0, 15000 * ms, 37500 * ms},
		{"one asked for", open, 20000 * ms, 20000 * ms, 50000 * ms},
		{"too short", open, 1 * ms, 1000 * ms, 2500 * ms},
		{"too long", open, time.Hour, 60000 * ms, 150000 * ms},
		{"the least", open, 1000 * ms, 1000 * ms, 2500 * ms},
		{"the most", open, 60000 * ms, 60000 * ms, 150000 * ms},
		{"negative is none", open, -1, 15000 * ms, 37500 * ms},
		{"odd", open, 1001 * ms, 1001 * ms, 2502500 * time.Microsecond},
		{"fixed timeout, none asked for", fixed, 0, 15000 * ms, 30000 * ms},
		{"fixed timeout, shorter beat", fixed, 2000 * ms, 2000 * ms, 30000 * ms},
		{"fixed timeout, a beat that it would not outlast", fixed, 60000 * ms, 20000 * ms, 30000 * ms},
	} {
		beat, timeout := test.c.decide(test.asked)
		if beat != test.beat || timeout != test.timeout {
			t.Errorf("%s: %s and %s, want %s and %s", test.name, beat, timeout, test.beat, test.timeout)
		}
	}
}

func TestBeatsWords(t *testing.T) {
	for _, b := range []Beats{ClientBeats, ServerBeats} {
		if got, err := ParseBeats(b.String()); err != nil || got != b {
			t.Errorf("%s: %v, %v", b, got, err)
		}
	}
	if _, err := ParseBeats("neither"); err == nil {
		t.Error("neither was taken")
	}
}

// get asks the ops handler as a client at addr would.
func get(h http.Handler, path, addr string) (int, string) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = addr, "localhost"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestOpsHandler(t *testing.T) {
	s, err := New(Config{Listen: []string{"tcp://127.0.0.1:0"}, Loops: 2,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	h := s.OpsHandler()
	const here, elsewhere = "127.0.0.1:1234", "192.0.2.1:1234"
	if code, _ := get(h, "/readyz", here); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz before Run: %d, want 503", code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for { // Run says that it is ready soon after it is called
		if code, _ := get(h, "/readyz", here); code == http.StatusOK {
			break
		}
		runtime.Gosched()
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/check", "/debug/pprof/",
		"/debug/pprof/cmdline", "/debug/pprof/heap"} {
		if code, body := get(h, path, here); code != http.StatusOK || body == "" {
			t.Errorf("%s: %d %q", path, code, body)
		}
		want := http.StatusOK
		if strings.HasPrefix(path, "/debug/") {
			want = http.StatusForbidden
		}
		if code, _ := get(h, path, elsewhere); code != want {
			t.Errorf("%s from elsewhere: %d, want %d", path, code, want)
		}
	}
	if code, _ := get(h, "/debug/check", "[::1]:1234"); code != http.StatusOK {
		t.Errorf("/debug/check from [::1]: %d", code)
	}
	for _, addr := range []string{"", "@", "[2001:db8::1]:1"} {
		if code, _ := get(h, "/debug/check", addr); code != http.StatusForbidden {
			t.Errorf("/debug/check from %q: %d, want 403", addr, code)
		}
	}
	if _, body := get(h, "/debug/check", here); !strings.Contains(body, `"ok": true`) {
		t.Errorf("/debug/check: %s", body)
	}
	checkMetrics(t, h)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if code, _ := get(h, "/readyz", here); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz after the end: %d, want 503", code)
	}
	if code, _ := get(h, "/healthz", here); code != http.StatusServiceUnavailable {
		t.Errorf("/healthz after the end: %d, want 503", code)
	}
}

// checkMetrics sees that every promised metric is there, with every label.
func checkMetrics(t *testing.T, h http.Handler) {
	t.Helper()
	_, body := get(h, "/metrics", "127.0.0.1:1")
	have := map[string]bool{}
	for line := range strings.Lines(body) {
		have[strings.TrimSpace(line[:strings.LastIndexByte(strings.TrimSpace(line), ' ')+1])] = true
	}
	want := []string{
		"heartwheel_connections", "heartwheel_connections_max", "heartwheel_ready", "heartwheel_accepted_total",
		`heartwheel_bytes_total{direction="in"}`, `heartwheel_bytes_total{direction="out"}`,
		`heartwheel_expiry_error_seconds_bucket{le="0.2"}`, `heartwheel_expiry_error_seconds_bucket{le="+Inf"}`,
		"heartwheel_expiry_error_seconds_sum", "heartwheel_expiry_error_seconds_count",
		`heartwheel_loop_lag_seconds_count{loop="0"}`, `heartwheel_loop_lag_seconds_count{loop="1"}`,
		`heartwheel_expiry_averted_total{why="unread"}`,
		`heartwheel_build_info{goversion="` + runtime.Version() + `",version="(devel)"}`,
		"heartwheel_wheel_rebuilds_total", "heartwheel_outbox_bytes", "heartwheel_handler_panics_total",
		`heartwheel_frames_total{direction="in",op="ext"}`, `heartwheel_frames_total{direction="out",op="ext"}`,
	}
	for r := range numReasons {
		want = append(want, `heartwheel_closed_total{reason="`+r.String()+`"}`)
	}
	for _, cause := range admission.Causes() {
		want = append(want, `heartwheel_refused_total{reason="`+cause.String()+`"}`)
	}
	for op := codec.OpBeat; op <= codec.OpPublish; op++ {
		want = append(want, `heartwheel_frames_total{direction="in",op="`+op.String()+`"}`,
			`heartwheel_frames_total{direction="out",op="`+op.String()+`"}`)
	}
	for _, name := range want {
		if !have[name] {
			t.Errorf("/metrics lacks %s", name)
		}
	}
}
