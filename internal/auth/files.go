package auth

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxTokensFile is the largest file of tokens, in bytes: some 500,000 tokens.
const maxTokensFile = 64 << 20

// NewToken returns a random token of 130 bits and its line for a file of tokens.
func NewToken(user string) (token, line string, err error) {
	if !ValidUser(user) || strings.TrimSpace(user) != user {
		return "", "", fmt.Errorf("auth: user %.300q is not UTF-8 of 1 to %d bytes without controls, or has spaces "+
			"around it", user, MaxUser)
	}
	token = rand.Text()
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:]) + " " + user, nil
}

// ReadTokens reads a file of tokens, for Config.Tokens. A line has the SHA-256 of a
// token in hex and, after spaces, its user; lines that are empty or begin with # do
// not count. The error has every line that is wrong.
func ReadTokens(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("auth: tokens: %w", err)
	}
	defer f.Close()
	var (
		tokens = map[string]string{}
		at     = map[string]int{} // line of a hash
		wrong  []error
		lines  = bufio.NewScanner(io.LimitReader(f, maxTokensFile+1))
		size   int
	)
	for n := 1; lines.Scan() && len(wrong) < 100; n++ {
		size += len(lines.Bytes()) + 1
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		report := func(format string, args ...any) {
			wrong = append(wrong, fmt.Errorf("auth: tokens %s:%d: "+format, append([]any{file, n}, args...)...))
		}
		hash, user := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			hash, user = strings.ToLower(line[:i]), strings.TrimSpace(line[i:])
		}
		b, err := hex.DecodeString(hash)
		switch {
		case err != nil || len(b) != sha256.Size: // it may be the token: not shown
			report("it does not begin with a SHA-256, 64 digits in hex")
		case !ValidUser(user):
			report("there is no user of 1 to %d bytes of UTF-8 behind the hash", MaxUser)
		case at[hash] != 0:
			report("it has the hash of line %d", at[hash])
		default:
			tokens[hash], at[hash] = user, n
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		wrong = append(wrong, fmt.Errorf("auth: tokens: %s: %w", file, err))
	case size > maxTokensFile:
		wrong = append(wrong, fmt.Errorf("auth: tokens: %s is larger than %d bytes", file, maxTokensFile))
	case len(wrong) == 0 && len(tokens) == 0:
		wrong = append(wrong, fmt.Errorf("auth: tokens: %s has none", file))
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return tokens, nil
}

// Exposed says what is wrong with the permissions of a file, for a warning: that other
// users can change it or, if it is secret, read it. A group may read a secret, as in
// root:heartwheel 0640. It is empty if nothing is wrong or the file is not there.
func Exposed(file string, secret bool) string {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o022 != 0:
		return fmt.Sprintf("%s can be changed by other users (mode %04o): chmod go-w %s", file, mode, file)
	case secret && mode&0o004 != 0:
		return fmt.Sprintf("%s can be read by every user (mode %04o): chmod o-r %s", file, mode, file)
	}
	return ""
}
