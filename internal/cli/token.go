package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"heartwheel/codec"
	"heartwheel/internal/auth"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

// maxTokenLife bounds --expires.
const maxTokenLife = 10 * 365 * 24 * time.Hour

func newToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make and check tokens of clients",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenMake(), newTokenStatic(), newTokenCheck())
	return cmd
}

// A tokenFlags are the flags of a token command.
type tokenFlags struct{ clientFlags }

func newTokenFlags(cmd *cobra.Command) *tokenFlags {
	cmd.Flags().SortFlags = false
	return &tokenFlags{clientFlags{cmd: cmd, values: map[string]*flagValue{}}}
}

func (f *tokenFlags) given(name string) bool { return len(f.values[name].texts) > 0 }

// wrong notes what is wrong with a flag whose error names what it is about.
func (f *tokenFlags) wrong(name string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		f.lines = append(f.lines, fmt.Sprintf("flag --%s: %s", name, strings.TrimPrefix(line, "auth: ")))
	}
}

// file returns the file that a flag names, after a warning if others can read a
// secret in it, or change it.
func (f *tokenFlags) file(name string, secret bool) string {
	path := f.text(name)
	if exposed := auth.Exposed(path, secret); exposed != "" {
		fmt.Fprintf(f.cmd.ErrOrStderr(), "heartwheel: warning: %s\n", exposed)
	}
	return path
}

func newTokenMake() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "make",
		Short: "Make a JSON Web Token",
		Long: `Prints a JSON Web Token that is signed with the secret of --secret-file (HS256)
or the private key of --key: RS256, the ES of its curve, or EdDSA. Secrets are
read from files only, as arguments can be seen in the list of processes.

Exits 0 if it was made, 1 if not, 64 for wrong usage.`,
		Example: `  heartwheel token make --user alice --secret-file secret
  heartwheel token make --user pump-7 --expires 720h --key key.pem --kid 2026`,
		Args: noArgs,
	}
	f := newTokenFlags(cmd)
	f.add("user", "", "text", "", "the user, in sub")
	f.add("expires", "", "duration", "1h", "how long it is good")
	f.add("secret-file", "", "path", "", "file that holds a secret of 32 bytes or more")
	f.add("key", "", "path", "", "private key in PEM")
	f.add("kid", "", "text", "", "ID of the key, for verifiers that have several")
	f.add("issuer", "", "text", "", "who made it, in iss")
	f.add("audience", "", "text", "", "who it is for, in aud")
	f.add("device", "", "text", "", "the user's device")
	f.add("channels", "", "names", "", "channels to subscribe to, with commas between them")
	f.add("info", "", "JSON", "", "what the application shows to others")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		c := auth.Claims{
			KeyID: f.text("kid"), User: f.text("user"), Issuer: f.text("issuer"), Audience: f.text("audience"),
			Device: f.text("device"), Issued: now, Expires: now.Add(f.duration("expires", time.Second, maxTokenLife)),
		}
		if f.given("channels") {
			c.Channels = strings.Split(f.text("channels"), ",")
		}
		if f.given("info") {
			c.Info = json.RawMessage(f.text("info"))
		}
		if !f.given("user") {
			f.wrong("user", errors.New("give the user"))
		}
		signer := f.signer()
		if err := f.err(); err != nil {
			return err
		}
		token, err := signer.Sign(c)
		if err != nil {
			return &settings.UsageError{Help: cmd.CommandPath(), Lines: []string{unprefixed(err).Error()}}
		}
		return printed(fmt.Fprintln(cmd.OutOrStdout(), token))
	}
	return cmd
}

// signer reads what signs.
func (f *tokenFlags) signer() (s auth.Signer) {
	switch secret, key := f.given("secret-file"), f.given("key"); {
	case secret == key:
		f.wrong("secret-file", errors.New("give either this or --key"))
	case secret:
		k, err := auth.ReadSecret(f.file("secret-file", true))
		if err == nil {
			s, err = auth.NewSigner(k)
		}
		f.wrong("secret-file", err)
	default:
		var err error
		s, err = auth.ReadSigner(f.file("key", true))
		f.wrong("key", err)
	}
	return s
}

// printed is the error of a command whose output ends with this.
func printed(_ int, err error) error {
	if err != nil {
		return &settings.Failure{Err: err}
	}
	return nil
}

func newTokenStatic() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "static",
		Short: "Make a random token",
		Long: `Prints two lines: a random token, which is for the client, and its line for the
file of tokens, which has the SHA-256 of the token and the user. A token cannot
be made from that line.

Exits 0 if it was made, 1 if not, 64 for wrong usage.`,
		Example: "  heartwheel token static --user pump-7",
		Args:    noArgs,
	}
	f := newTokenFlags(cmd)
	f.add("user", "", "text", "", "the user")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !f.given("user") {
			f.wrong("user", errors.New("give the user"))
			return f.err()
		}
		token, line, err := auth.NewToken(f.text("user"))
		if err != nil {
			f.wrong("user", err)
			return f.err()
		}
		return printed(fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", token, line))
	}
	return cmd
}

func newTokenCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a token",
		Long: `Checks the token in FILE, or on standard input, and prints its user, when it
expires and what else it says, or why it is refused with which code. The flags
say what it must be good for: a file of tokens, or keys of JSON Web Tokens.

Exits 0 if it is good, 1 if not, 64 for wrong usage.`,
		Example: `  heartwheel token check --secret-file secret <token
  heartwheel token check --tokens-file tokens token
  heartwheel token check --jwks https://id.example/keys --audience chat token`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("check takes one file at most, but got %d", len(args))
			}
			return nil
		},
	}
	f := newTokenFlags(cmd)
	f.add("tokens-file", "", "path", "", "file of tokens: a SHA-256 and a user in each line")
	f.add("secret-file", "", "path", "", "file that holds the secret")
	f.add("key", "", "path", "", "public key or certificate in PEM; may be given several times")
	f.add("jwks", "", "URL", "", "JWK set")
	f.add("issuer", "", "text", "", "what iss must be")
	f.add("audience", "", "text", "", "what aud must have")
	f.add("leeway", "", "duration", "0s", "for clocks that differ")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := f.config()
		if err := f.err(); err != nil {
			return err
		}
		token, err := tokenOf(cmd, args)
		if err != nil {
			return &settings.Failure{Err: err}
		}
		id, err := checkToken(c, token)
		if err != nil {
			return &settings.Failure{Err: err}
		}
		return printIdentity(cmd.OutOrStdout(), id)
	}
	return cmd
}

// config reads the settings that a token is checked with.
func (f *tokenFlags) config() auth.Config {
	c := auth.Config{
		Mode: auth.JWT, JWKS: f.text("jwks"), Issuer: f.text("issuer"), Audience: f.text("audience"),
		Leeway: f.duration("leeway", 0, 10*time.Minute),
		Logger: slog.New(slog.NewTextHandler(f.cmd.ErrOrStderr(), nil)),
	}
	var err error
	if f.given("tokens-file") {
		c.Mode = auth.Tokens
		c.Tokens, err = auth.ReadTokens(f.file("tokens-file", false))
		f.wrong("tokens-file", err)
	}
	if f.given("secret-file") {
		k, err := auth.ReadSecret(f.file("secret-file", true))
		f.wrong("secret-file", err)
		c.Keys = append(c.Keys, k)
	}
	for _, file := range f.values["key"].texts {
		k, err := auth.ReadKey(file)
		f.wrong("key", err)
		c.Keys = append(c.Keys, k)
	}
	keys, tokens := len(c.Keys) > 0 || c.JWKS != "", f.given("tokens-file")
	switch {
	case tokens && (keys || c.Issuer != "" || c.Audience != "" || c.Leeway != 0):
		f.wrong("tokens-file", errors.New("give either this or the flags of JSON Web Tokens"))
	case !tokens && !keys:
		f.lines = append(f.lines, "nothing says what the token must be good for; "+
			"give --tokens-file, or --secret-file, --key or --jwks")
	case len(f.lines) == 0:
		f.wrong("jwks", c.Validate()) // nothing else can be wrong by now
	}
	return c
}

// tokenOf reads the token: of a file, or of standard input.
func tokenOf(cmd *cobra.Command, args []string) (string, error) {
	if len(args) == 1 {
		token, err := readToken(args[0])
		if err != nil {
			return "", fmt.Errorf("%s %w", args[0], err)
		}
		return token, nil
	}
	b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
	token := strings.TrimSpace(string(b))
	if err == nil && token == "" {
		err = errors.New("there is no token on standard input")
	}
	return token, err
}

// checkToken checks a token as a server does.
func checkToken(c auth.Config, token string) (auth.Identity, error) {
	a, err := auth.NewAuthenticator(c)
	if err != nil {
		return auth.Identity{}, unprefixed(err)
	}
	defer a.Close()
	r := auth.Request{Token: token}
	id, ok, err := a.CheckNow(r)
	if !ok {
		done := make(chan struct{})
		if !a.Check(r, func(i auth.Identity, e error) { id, err = i, e; close(done) }) {
			return auth.Identity{}, auth.ErrUnavailable
		}
		<-done
	}
	if e, ok := errors.AsType[*codec.Error](err); ok {
		return id, fmt.Errorf("refused with %d %s: %w", e.Code, e.Code, unprefixed(err))
	}
	return id, err
}

// unprefixed is an error without the name of the package.
func unprefixed(err error) error {
	return errors.New(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "auth: "), "\nauth: ", "\n"))
}

func printIdentity(w io.Writer, id auth.Identity) error {
	expires := "never"
	if !id.Expires.IsZero() {
		left := wording.Duration(time.Until(id.Expires).Round(time.Second))
		expires = fmt.Sprintf("%s, in %s", id.Expires.UTC().Format(time.RFC3339), left)
	}
	var channels []byte // in JSON, so that a control character of a name is not printed
	if len(id.Channels) > 0 {
		channels, _ = json.Marshal(id.Channels)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range [][2]string{
		{"user", id.User}, {"expires", expires}, {"device", id.Device},
		{"channels", string(channels)}, {"info", string(id.Info)},
	} {
		if row[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
		}
	}
	return printed(0, t.Flush())
}
