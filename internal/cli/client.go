package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"heartwheel/client"
	"heartwheel/internal/config"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

// clientFlags are the flags of ping and connect as they were written, and what
// is wrong with them, one line each.
type clientFlags struct {
	cmd    *cobra.Command
	values map[string]*flagValue
	lines  []string
}

// newClientFlags gives cmd the flags that both have.
func newClientFlags(cmd *cobra.Command) *clientFlags {
	cmd.Args = exactly(1, "one address")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().SortFlags = false
	return &clientFlags{cmd: cmd, values: map[string]*flagValue{}}
}

// add adds a flag whose value is text until one of the methods below reads it.
func (f *clientFlags) add(name, short, kind, def, help string) {
	v := &flagValue{kind: kind, byDefault: def}
	f.values[name] = v
	f.cmd.Flags().VarP(v, name, short, help)
	if kind == "path" {
		return // the shell completes it
	}
	if err := f.cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions); err != nil {
		panic(err) // two flags with one name
	}
}

func (f *clientFlags) text(name string) string { return f.values[name].String() }

// duration reads a flag that lies between least and most. It may be absent.
func (f *clientFlags) duration(name string, least, most time.Duration) time.Duration {
	text := f.text(name)
	if text == "" {
		return 0
	}
	d, err := config.ParseDuration(text)
	if err == nil && (d < least || d > most) {
		err = fmt.Errorf("must lie between %s and %s", wording.Duration(least), wording.Duration(most))
	}
	f.judge(name, err)
	return d
}

// count reads a flag that is a number and not negative.
func (f *clientFlags) count(name string) int {
	n, err := config.ParseNumber(f.text(name))
	if err == nil && n < 0 {
		err = errors.New("must not be negative")
	}
	f.judge(name, err)
	return n
}

// addToken adds the flags that setToken reads.
func (f *clientFlags) addToken() {
	f.add("token", "", "text", "", "credential to send in HELLO")
	f.add("token-file", "", "path", "", "file that holds the credential")
}

// setToken sets the token of cfg: --token, otherwise what --token-file holds,
// otherwise the environment's.
func (f *clientFlags) setToken(cfg *client.Config, environ []string) {
	if len(f.values["token"].texts) > 0 {
		cfg.Token = f.text("token")
		return
	}
	if len(f.values["token-file"].texts) == 0 {
		for _, variable := range environ {
			if token, ok := strings.CutPrefix(variable, settings.TokenEnv+"="); ok {
				cfg.Token = token
			}
		}
		return
	}
	path := f.text("token-file")
	token, err := readToken(path)
	f.judge("token-file", err)
	info, err := os.Stat(path)
	rotates := err == nil && info.Mode().IsRegular() // a pipe can be read only once
	cfg.TokenFunc = func(context.Context, string) (string, error) {
		if !rotates {
			return token, nil
		}
		token, err := readToken(path)
		if err != nil {
			return "", fmt.Errorf("%s %w", path, err)
		}
		return token, nil
	}
}

// readToken returns the content of a file without its last line break. The error
// continues a sentence that begins with the path.
func readToken(path string) (string, error) {
	data, err := config.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case token == "":
		return "", errors.New("is empty; it must hold the token")
	case !utf8.ValidString(token):
		return "", errors.New("is not UTF-8")
	}
	return token, nil
}

func (f *clientFlags) judge(name string, err error) {
	if err != nil {
		f.lines = append(f.lines, fmt.Sprintf("%s %q (flag --%s): %s", name, f.text(name), name, err))
	}
}

// err is a *settings.UsageError if anything is wrong with the flags that were read.
func (f *clientFlags) err() error {
	if len(f.lines) == 0 {
		return nil
	}
	return &settings.UsageError{Lines: f.lines, Help: f.cmd.CommandPath()}
}

// notifySignals returns a channel of the signals that end a command. stop restores
// their default effect.
func notifySignals() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	return signals, func() { signal.Stop(signals) }
}

// dial is client.Dial, except that a signal ends it and that its errors are those
// of a command.
func (f *clientFlags) dial(signals <-chan os.Signal, url string, cfg client.Config) (*client.Client, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var (
		c    *client.Client
		err  error
		done = make(chan struct{})
	)
	go func() {
		defer close(done)
		c, err = client.Dial(ctx, url, cfg)
	}()
	select {
	case <-done:
	case sig := <-signals:
		cancel()
		<-done
		if c != nil {
			_ = c.Close()
		}
		return nil, &settings.Failure{Err: fmt.Errorf("%s: interrupted while connecting: %s", url, sig)}
	}
	switch {
	case errors.Is(err, client.ErrConfig):
		return nil, &settings.UsageError{Lines: configErrors(err), Help: f.cmd.CommandPath()}
	case err != nil:
		return nil, clientFailure(err)
	}
	return c, nil
}

// closeClient closes c. A signal ends the wait for that.
func closeClient(c *client.Client, signals <-chan os.Signal) error {
	closed := make(chan struct{})
	go func() {
		_ = c.Close() // always nil
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-signals:
		return &settings.Failure{Err: errors.New("ended by a second signal")}
	}
}

// clientFailure returns an error of package client for the user.
func clientFailure(err error) error {
	text := strings.TrimPrefix(err.Error(), "client: ")
	return &settings.Failure{Err: errors.New(visible([]byte(text)))} // parts may be the server's text
}

// configErrors returns a line for each error in err.
func configErrors(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var lines []string
		for _, err := range joined.Unwrap() {
			lines = append(lines, configErrors(err)...)
		}
		return lines
	}
	var dialErr *client.Error
	if errors.As(err, &dialErr) { // without the advice about retrying
		return []string{dialErr.URL + ": " + dialErr.Err.Error()}
	}
	return []string{strings.TrimPrefix(err.Error(), "client: ")}
}
