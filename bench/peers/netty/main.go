// Command netty is the Netty server: it compiles EchoServer.java, once for each
// binary, and becomes the Java process that runs it. It needs a JDK and Netty as
// Debian packages them; that has no native transport, so the server uses NIO.
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"heartwheel/bench/peers/peer"
)

//go:embed EchoServer.java
var source []byte

// jars is where libnetty-java has Netty.
const jars = "/usr/share/java"

var modules = []string{"buffer", "codec", "common", "handler", "resolver", "transport"}

func main() {
	check := flag.Bool("check", false, "only see whether the server can run here, and compile it: exit 1 says what is "+
		"missing, exit 0 prints Netty's version")
	o := peer.Start()
	path, err := compile()
	if err != nil {
		peer.Fail(err)
	}
	if *check {
		fmt.Println(version())
		return
	}
	peer.Fail(become(path, o))
}

// compile returns the class path of the server.
func compile() (string, error) {
	for _, tool := range []string{"javac", "java"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("there is no %s here: apt-get install openjdk-17-jdk-headless", tool)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	classes := exe + ".classes"
	path := classes
	for _, module := range modules {
		jar := filepath.Join(jars, "netty-"+module+".jar")
		if _, err := os.Stat(jar); err != nil {
			return "", fmt.Errorf("there is no %s here: apt-get install libnetty-java", jar)
		}
		path += ":" + jar
	}
	if _, err := os.Stat(classes); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(exe), "netty-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	file := filepath.Join(scratch, "EchoServer.java")
	if err := os.WriteFile(file, source, 0o644); err != nil {
		return "", err
	}
	if out, err := exec.Command("javac", "-d", scratch, "-cp", path, file).CombinedOutput(); err != nil {
		return "", fmt.Errorf("javac: %w\n%s", err, out)
	}
	// In place at once or not at all; another process may have been first.
	if err := os.Rename(scratch, classes); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return path, nil
}

// become replaces this process by the server.
func become(path string, o peer.Options) error {
	java, err := exec.LookPath("java")
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return err
	}
	return syscall.Exec(java, []string{
		"java", "-XX:ActiveProcessorCount=" + strconv.Itoa(runtime.GOMAXPROCS(0)),
		// What lets Netty manage its direct buffers without cleaners.
		"--add-opens", "java.base/java.nio=ALL-UNNAMED",
		"--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED",
		"-Dio.netty.tryReflectionSetAccessible=true",
		"-cp", path, "EchoServer",
		host, port, strconv.FormatInt(o.Timeout.Milliseconds(), 10), strconv.Itoa(o.Loops),
	}, os.Environ())
}

// version is what the link to a jar is named after.
func version() string {
	links, _ := filepath.Glob(filepath.Join(jars, "netty-common-*.jar"))
	for _, link := range links {
		name := filepath.Base(link)
		return name[len("netty-common-") : len(name)-len(".jar")]
	}
	return "of an unknown version"
}
