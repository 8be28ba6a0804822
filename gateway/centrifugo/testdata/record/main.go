// Command record writes the transcripts that package centrifugo's tests replay,
// from a running Centrifugo.
//
//	go run ./gateway/centrifugo/testdata/record --centrifugo PATH --out DIR
//
// Ids, epochs and tokens are replaced by names in order of appearance. Lines:
//
//	> command      a frame to the server; Protobuf commands are shown as JSON
//	+ command      another command of the same frame
//	hex bytes      a frame as it is
//	< reply        a reply or push, however frames hold them
//	x code reason  the server closed the connection
//	# text         what happened elsewhere
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const apiKey = "key"

// configs are those that the scenarios name.
var configs = map[string]string{
	"insecure": `{"client":{"insecure":true},"channel":{"without_namespace":{"history_size":10,"history_ttl":"300s",
"presence":true,"allowed_delta_types":["fossil"],"delta_publish":true},"namespaces":[
{"name":"plain"},
{"name":"members","presence":true,"join_leave":true,"force_push_join_leave":true},
{"name":"recover","history_size":3,"history_ttl":"300s","force_recovery":true},
{"name":"json","publication_data_format":"json"}]},
"http_api":{"key":"key"},"http_server":{"address":"127.0.0.1","port":"PORT"}}`,
	"secure": `{"client":{"token":{"hmac_secret_key":"secret"}},"channel":{"namespaces":[
{"name":"open","allow_subscribe_for_client":true},
{"name":"chat","allow_subscribe_for_client":true,"allow_publish_for_subscriber":true,"presence":true,
"history_size":10,"history_ttl":"300s"},
{"name":"own","allow_user_limited_channels":true}]},
"http_api":{"key":"key"},"http_server":{"address":"127.0.0.1","port":"PORT"}}`,
	"limits": `{"client":{"insecure":true,"channel_limit":2},"channel":{"max_length":20},
"http_api":{"key":"key"},"http_server":{"address":"127.0.0.1","port":"PORT"}}`,
	"expiry": `{"client":{"token":{"hmac_secret_key":"secret"},"expired_close_delay":"1s",
"expired_sub_close_delay":"1s","stale_close_delay":"1s","presence_update_interval":"1s","channel_limit":2,
"user_connection_limit":1},
"channel":{"namespaces":[{"name":"open","allow_subscribe_for_client":true}]},
"http_api":{"key":"key"},"http_server":{"address":"127.0.0.1","port":"PORT"}}`,
	"shutdown": `{"client":{"insecure":true},"http_server":{"address":"127.0.0.1","port":"PORT"}}`,
	"proxy": `{"client":{"proxy":{"connect":{"enabled":true,"endpoint":"BACKEND"},
"refresh":{"enabled":true,"endpoint":"BACKEND"}}},
"rpc":{"proxy":{"endpoint":"BACKEND"},"without_namespace":{"proxy_enabled":true}},
"channel":{"proxy":{"subscribe":{"endpoint":"BACKEND"},"publish":{"endpoint":"BACKEND"},
"sub_refresh":{"endpoint":"BACKEND"}},
"without_namespace":{"subscribe_proxy_enabled":true,"sub_refresh_proxy_enabled":true,"publish_proxy_enabled":true,
"history_size":10,"history_ttl":"300s"}},
"http_api":{"key":"key"},"http_server":{"address":"127.0.0.1","port":"PORT"}}`,
	"ping": `{"client":{"insecure":true,"ping_interval":"2s","pong_timeout":"1s"},
"http_api":{"key":"key"},"http_server":{"address":"127.0.0.1","port":"PORT"}}`,
}

// A server is one Centrifugo.
type server struct {
	cmd  *exec.Cmd
	addr string
}

func start(binary, config string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	f, err := os.CreateTemp("", "centrifugo-*.json")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	config = strings.ReplaceAll(config, "BACKEND", backend())
	_, _ = f.Write(bytes.ReplaceAll([]byte(config), []byte("PORT"), []byte(port)))
	_ = f.Close()
	s := &server{cmd: exec.Command(binary, "-c", f.Name()), addr: addr}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 300 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return s, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.stop()
	return nil, errors.New("centrifugo does not listen")
}

// backend serves proxy requests and returns its address. What to answer is in the
// data of the client's command, as "answer"; "fail" is HTTP 500.
var backend = sync.OnceValue(func() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			Data struct{ Answer json.RawMessage }
		}
		_ = json.NewDecoder(r.Body).Decode(&request)
		switch a := request.Data.Answer; {
		case string(a) == `"fail"`:
			w.WriteHeader(http.StatusInternalServerError)
		case len(a) == 0:
			_, _ = io.WriteString(w, `{"result":{}}`)
		default:
			_, _ = w.Write(a)
		}
	}
	go func() { log.Fatal(http.Serve(l, http.HandlerFunc(answer))) }()
	return "http://" + l.Addr().String()
})

func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// api calls the server API and returns its result.
func (s *server) api(method string, body any) (map[string]any, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+s.addr+"/api/"+method, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-API-Key", apiKey)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, _ = io.ReadAll(res.Body)
	var out struct {
		Result map[string]any
		Error  any
	}
	if err := json.Unmarshal(b, &out); err != nil || out.Error != nil {
		return nil, fmt.Errorf("api %s: %s", method, b)
	}
	return out.Result, nil
}

func main() {
	binary := flag.String("centrifugo", "", "Centrifugo 6.9.1")
	out := flag.String("out", "gateway/centrifugo/testdata/transcripts", "where to write")
	only := flag.String("only", "", "record the scenarios of one configuration")
	flag.Parse()
	if err := os.MkdirAll(*out, 0o755); err != nil {
		log.Fatal(err)
	}
	for name, config := range configs {
		if *only != "" && *only != name {
			continue
		}
		s, err := start(*binary, config)
		if err != nil {
			log.Fatal(err)
		}
		for _, sc := range scenarios {
			if sc.config != name {
				continue
			}
			for _, format := range []string{"json", "protobuf"} {
				if sc.only != "" && sc.only != format {
					continue
				}
				r := &recorder{server: s, format: format, names: map[string]string{}}
				fmt.Fprintf(&r.text, "# %s, %s, Centrifugo 6.9.1, configuration %q\n", sc.name, format, name)
				r.run(sc)
				file := filepath.Join(*out, sc.name+"."+format+".txt")
				if err := os.WriteFile(file, r.text.Bytes(), 0o644); err != nil {
					log.Fatal(err)
				}
			}
		}
		s.stop()
	}
}
