package auth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"

	"heartwheel/codec"
)

// Bounds on a JWK set.
const (
	maxJWKS      = 1 << 20 // bytes
	maxKeys      = 100
	maxSameID    = 4 // keys with one ID, or none: a token is tried with each
	maxRedirects = 3
)

// A keySet holds the keys of a JWK set. They are fetched at an interval and when a
// token has a key ID that is not known, and kept while that fails.
type keySet struct {
	from               endpoint
	client             *http.Client
	interval, cooldown time.Duration
	timeout            time.Duration
	room               int // for parked checks
	log                *slog.Logger
	outage             outage
	resume             func([]*check)
	ctx                context.Context
	cancel             context.CancelFunc
	wake               chan struct{}

	list atomic.Pointer[keyList] // nil: none yet

	mu       sync.Mutex
	parked   []*check  // until the fetch that runs has ended
	begun    time.Time // the last fetch
	fetching bool
	failing  bool // the last fetch failed
	stopped  bool

	fetches, failures atomic.Uint64
}

// A keyList is what one fetch brought.
type keyList struct {
	keys []Key
	sum  [sha256.Size]byte // of the body
}

// newKeySet returns the key set of c, until ctx ends. Checks that waited for a fetch
// are handed to resume.
func newKeySet(ctx context.Context, c Config, resume func([]*check)) (*keySet, error) {
	from, err := parseEndpoint("JWKS", c.JWKS, loopback, "this machine")
	if err != nil {
		return nil, mistake{err}
	}
	k := &keySet{
		from: from, interval: c.JWKSInterval, cooldown: c.JWKSCooldown, timeout: c.Timeout, room: c.Queue,
		log: c.Logger, outage: outage{log: c.Logger, what: "fetching the JWK set"}, resume: resume,
		wake: make(chan struct{}, 1),
	}
	k.client = &http.Client{Transport: c.transport, CheckRedirect: k.redirect}
	if c.transport == nil {
		t := newTransport(from, loopback, "this machine", 1, c.Timeout)
		t.Proxy = http.ProxyFromEnvironment
		k.client.Transport = t
	}
	k.ctx, k.cancel = context.WithCancel(ctx)
	return k, nil
}

// first fetches for the first time. An outage is an error unless it is at a start.
func (k *keySet) first(starting bool) error {
	k.begin()
	err := k.refresh()
	switch {
	case err == nil:
		return nil
	case starting && !errors.As(err, new(mistake)):
		k.outage.failed(err)
		return nil
	}
	k.cancel()
	k.client.CloseIdleConnections()
	return err
}

// serves reports whether k is what c asks for.
func (k *keySet) serves(c Config) bool {
	return k.from.String() == c.JWKS && k.interval == c.JWKSInterval && k.cooldown == c.JWKSCooldown &&
		k.timeout == c.Timeout && k.room == c.Queue
}

// redirect allows redirects of one host.
func (k *keySet) redirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return mistake{errors.New("it has too many redirects")}
	case r.URL.Scheme != k.from.Scheme || r.URL.Host != k.from.Host:
		return mistake{fmt.Errorf("it redirects to %s://%s", r.URL.Scheme, r.URL.Host)}
	}
	return nil
}

// run fetches until ctx ends.
func (k *keySet) run() {
	timer := time.NewTimer(k.interval)
	defer timer.Stop()
	for retry := time.Second; ; {
		wait := k.interval
		if k.isFailing() {
			wait, retry = min(retry, k.cooldown), min(2*retry, k.cooldown)
		} else {
			retry = time.Second
		}
		timer.Reset(wait)
		select {
		case <-k.ctx.Done():
			k.end()
			return
		case <-timer.C:
			k.begin()
		case <-k.wake:
		}
		if err := k.refresh(); err == nil {
			k.outage.worked()
		} else if k.ctx.Err() == nil {
			k.outage.failed(err)
		}
	}
}

func (k *keySet) isFailing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failing
}

// begin marks the start of a fetch, which is then also that of a wake.
func (k *keySet) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun, k.fetching = time.Now(), true
	select {
	case <-k.wake:
	default:
	}
}

// end resumes what is parked, for good.
func (k *keySet) end() {
	k.mu.Lock()
	k.stopped = true
	parked := k.parked
	k.parked = nil
	k.mu.Unlock()
	k.client.CloseIdleConnections()
	k.resume(parked)
}

// refresh fetches once, and resumes what waited for that.
func (k *keySet) refresh() error {
	k.fetches.Add(1)
	list, err := k.fetch(k.ctx)
	if err == nil {
		k.list.Store(list)
	} else {
		k.failures.Add(1)
	}
	k.mu.Lock()
	k.fetching, k.failing = false, err != nil
	parked := k.parked
	k.parked = nil
	k.mu.Unlock()
	k.resume(parked)
	return err
}

func (k *keySet) fetch(ctx context.Context) (*keyList, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	wrong := func(err error) error { return fmt.Errorf("auth: JWK set of %s: %w", k.from.name, cause(err)) }
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.from.String(), nil)
	if err != nil {
		return nil, wrong(err)
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := k.client.Do(r)
	if err != nil {
		return nil, wrong(err)
	}
	defer response.Body.Close()
	switch s := response.StatusCode; {
	case s == http.StatusOK:
	case s >= 500, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout:
		return nil, wrong(fmt.Errorf("the answer is %s", response.Status))
	default:
		return nil, wrong(mistake{fmt.Errorf("the answer is %s", response.Status)})
	}
	body, err := readBody(response.Body, maxJWKS)
	if err != nil {
		return nil, wrong(err)
	}
	list := &keyList{sum: sha256.Sum256(body)}
	if old := k.list.Load(); old != nil && old.sum == list.sum {
		return old, nil
	}
	keys, ignored, err := parseJWKS(body)
	if err != nil {
		return nil, wrong(mistake{err})
	}
	for _, why := range ignored {
		k.log.Warn("a key of the JWK set is not used", "error", why)
	}
	list.keys = keys
	return list, nil
}

// A noKeyError is of a token whose public key is not known.
type noKeyError struct{ kid string }

func (e *noKeyError) Error() string {
	return fmt.Sprintf("no key for its algorithm and kid %.64q", e.kid)
}

// unknown says what to do with a check whose key is not among those of seen. It is
// parked until a fetch has ended, or is to be checked again as there are other keys
// now, or ends with an error.
func (k *keySet) unknown(c *check, seen *keyList, kid string) (parked, again bool, verdict *codec.Error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := k.list.Load()
	if k.stopped || list != seen {
		return false, true, nil
	}
	if kid == "" && list != nil {
		return false, false, ErrBadToken // no other key would be for it
	}
	if !k.fetching {
		switch cooling := time.Since(k.begun) < k.cooldown; {
		case cooling && k.failing:
			return false, false, ErrUnavailable
		case cooling:
			return false, false, ErrBadToken
		}
		k.begun, k.fetching = time.Now(), true
		k.wake <- struct{}{} // it is empty when no fetch runs
	}
	if len(k.parked) >= k.room {
		return false, false, ErrUnavailable
	}
	k.parked = append(k.parked, c)
	return true, false, nil
}

// parseJWKS returns the keys of a JWK set, and why others of it are not used.
func parseJWKS(body []byte) (keys []Key, ignored []error, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, nil, errors.New("it is not a JWK set in JSON")
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("it has %d keys, and may have %d", len(set.Keys), maxKeys)
	}
	for i, raw := range set.Keys {
		key, err := parseJWK(raw)
		if err == nil {
			same := 0
			for _, other := range keys {
				if other.ID == key.ID {
					same++
				}
			}
			if same == maxSameID {
				err = fmt.Errorf("%d others have the same kid", same)
			}
		}
		if err != nil {
			ignored = append(ignored, fmt.Errorf("auth: key %d, kid %.64q: %w", i+1, key.ID, err))
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, ignored, errors.Join(append([]error{errors.New("it has no key that can be used")}, ignored...)...)
	}
	return keys, ignored, nil
}

// parseJWK reads one key. If it cannot be used, the ID is set all the same.
func parseJWK(raw json.RawMessage) (Key, error) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return Key{}, errors.New("it is not a JWK")
	}
	key := Key{ID: m.KID, Algorithm: string(m.ALG)}
	switch {
	case m.KTY == jwkset.KtyOct, m.K != "":
		return key, errors.New("it is a secret, which a JWK set gives away")
	case m.D != "", m.P != "", m.Q != "", m.DP != "", m.DQ != "", m.QI != "", len(m.OTH) > 0:
		return key, errors.New("it is a private key, which a JWK set gives away: replace it")
	case m.USE != "" && m.USE != jwkset.UseSig:
		return key, fmt.Errorf("its use is %.20q", string(m.USE))
	case len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify):
		return key, errors.New("its key_ops have no verify")
	}
	m.X5C, m.X5U, m.X5T, m.X5TS256 = nil, "", "", "" // the key itself is what counts
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{},
		jwkset.JWKValidateOptions{SkipUse: true, SkipKeyOps: true})
	if err != nil {
		return key, errors.New("it is of a kind that is not known, or broken")
	}
	key.Public = crypto.PublicKey(jwk.Key())
	if _, ok := key.Public.(ed25519.PublicKey); ok && key.Algorithm == "Ed25519" { // RFC 9864
		key.Algorithm = "EdDSA"
	}
	return key, key.validate()
}
