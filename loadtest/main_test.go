package loadtest

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"heartwheel/loadtest/engine"
	"heartwheel/server"
)

// roleEnv makes the test binary a subcommand of heartwheel.
const roleEnv = "LOADTEST_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		flag.Parse()
		_ = flag.Set("test.parallel", "16")              // the runs are mostly asleep
		goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) // the server's modules have some before main
	case "serve":
		serveForTests()
	case engine.WorkerCommand:
		if err := engine.Worker(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "heartwheel: no such role", role)
		os.Exit(2)
	}
}

// command starts the test binary as the subcommand.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+args[0])
	return cmd
}

// serveForTests is heartwheel serve with a beat of 400 ms and T = 1.5 s. With
// --die it ends by itself.
func serveForTests() {
	cfg := server.Config{Listen: []string{"tcp://127.0.0.1:0"}, Beat: 400 * time.Millisecond,
		Timeout: 1500 * time.Millisecond,
		BeatMin: 100 * time.Millisecond, Drain: time.Second, Logger: slog.New(slog.DiscardHandler)}
	if slices.Contains(os.Args, "--long") {
		cfg.Beat, cfg.Timeout = time.Minute, 10*time.Minute
	}
	if slices.Contains(os.Args, "--small") {
		cfg.MaxConnections = 50
	}
	s, err := server.New(cfg, server.Echo{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "heartwheel:", err)
		os.Exit(1)
	}
	ops, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	go func() { _ = http.Serve(ops, s.OpsHandler()) }()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	log.Info("ops listening", "addr", ops.Addr().String())
	log.Info("listening", "addr", s.Addrs()[0].String())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if slices.Contains(os.Args, "--die") {
		time.AfterFunc(3*time.Second, func() { log.Error("cannot go on"); os.Exit(7) })
	}
	if err := s.Run(ctx); err != nil {
		os.Exit(1)
	}
}
