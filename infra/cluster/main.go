//go:build linux

// Command cluster brings up a real Kubernetes with Knative Serving and Eventing on a
// plain Linux machine, as root, without Docker, and the whole system on it:
//
//	go run ./infra/cluster up       # and again, to bring what has changed
//	go run ./infra/cluster status
//	go run ./infra/cluster down
//
// All is built from Go modules (see package build) or comes from the distribution's
// packages: containerd, runc and etcd. It runs in namespaces of its own, and down, as
// well as an up that fails or is interrupted, leaves nothing behind but the cache of
// what was built.
//
// It is for tests, for CI, and for whoever has no Docker; with Docker, kind is the way
// (see infra/docs/development.md). It is nothing to keep data in.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ticketing.com/auth/infra/cluster/build"
	"ticketing.com/auth/infra/cluster/cold"
	"ticketing.com/auth/infra/cluster/image"
	"ticketing.com/auth/infra/cluster/install"
	"ticketing.com/auth/infra/cluster/node"
	"ticketing.com/auth/infra/cluster/system"
	"ticketing.com/auth/shared/usage"
)

func main() {
	// A plain su leaves these out, and the node's programs look for others there.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	// The cluster is at the end of no proxy.
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		os.Setenv(name, strings.TrimPrefix(os.Getenv(name)+",", ",")+node.NoProxy)
	}
	// Whoever reads what is said may be gone, as tee is after Ctrl-C, before the cluster is.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	// A second signal meets the default handling.
	ctx, restore := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, restore)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command. It returns the exit code: 0; 1 when the cluster is down, or not up
// yet; 2 after one line that says what is wrong; 3 after one that says why none can run
// here.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	help := usage.Command{Call: call, Text: text, Stdout: stdout, Stderr: stderr}
	if len(args) == 0 {
		return help.Error("no command is given")
	}
	command, args := args[0], args[1:]
	flags := new(flag.FlagSet)
	c := cluster{stdout: stdout, stderr: stderr, began: time.Now()}
	flags.StringVar(&c.node.Dir, "dir", "/var/lib/ticketing-auth-cluster", "")
	do := map[string]func(context.Context) error{
		"up": c.up, "down": c.down, "status": c.status, "cold": c.cold,
		"inside": func(context.Context) error { return node.Inside(c.node.Dir, os.Stdin) },
	}[command]
	switch command {
	case "up":
		flags.BoolVar(&c.install, "install", false, "")
		flags.BoolVar(&c.bare, "bare", false, "")
	case "cold":
		flags.IntVar(&c.times, "times", 20, "")
		flags.IntVar(&c.burst, "burst", 0, "")
		flags.Func("with", "", func(change string) error { c.with = append(c.with, change); return nil })
	}
	switch {
	case usage.IsHelp(command):
		return help.Help()
	case do == nil:
		return help.Error("unknown command")
	}
	help.Call += " " + command
	if code, end := help.Parse(flags, args, 0); end {
		return code
	}
	var err error
	if c.node.Dir, err = node.Folder(c.node.Dir); err == nil {
		err = do(ctx)
	}
	switch { // a shell evaluates the other output
	case errors.Is(err, errDown):
		fmt.Fprintf(stderr, "cluster %s: %v\n", command, err)
		return 1
	case errors.Is(err, node.ErrUnable):
		fmt.Fprintf(stderr, "cluster %s: %v\n", command, err)
		return 3
	case err != nil:
		fmt.Fprintf(stderr, "cluster %s: %v\n", command, err)
		return 2
	}
	return 0
}

var errDown = errors.New("the cluster is down")

// A cluster is the one of this machine.
type cluster struct {
	node           node.Node
	install, bare  bool
	times, burst   int
	with           []string
	stdout, stderr io.Writer
	began          time.Time
}

// say tells of progress, with the time since the beginning.
func (c *cluster) say(sentence string) {
	fmt.Fprintf(c.stderr, "%7s  %s\n", time.Since(c.began).Round(100*time.Millisecond), sentence)
}

func (c *cluster) up(ctx context.Context) error {
	unlock, err := node.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.node.State(); err != nil { // which is to be known before all is built
		return err
	}
	if err := node.Needs(ctx, c.install, c.stderr); err != nil {
		return err
	}
	platform, err := c.build(ctx)
	if err != nil {
		return err
	}
	state, err := c.node.State()
	if err != nil {
		return err
	}
	if state == node.Up {
		c.say("The cluster is up already: what has changed is installed.")
		if err := c.fill(ctx, platform); err != nil {
			return err
		}
		c.exports()
		return nil
	}
	running, err := c.node.Start(ctx)
	if err != nil {
		return err
	}
	c.say("The API server is ready.")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { <-running.Died(); cancel(running.Why()) }()
	if err := c.fill(ctx, platform); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else {
			c.explain()
		}
		stopped := running.Stop()
		if stopped == nil {
			c.say("Everything is taken down.")
		}
		return errors.Join(err, stopped)
	}
	if err := running.Leave(); err != nil {
		return errors.Join(err, running.Stop())
	}
	c.exports()
	return nil
}

// explain says what the cluster says of itself, before a failure takes it and its logs
// down: its pods, its warnings, and the last words of every pod that is not ready.
func (c *cluster) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ask := func(lines int, args ...string) error {
		said, err := c.node.Kubectl(ctx, nil, args...)
		if err != nil {
			said = err.Error()
		}
		all := strings.Split(strings.TrimSpace(said), "\n")
		fmt.Fprintln(c.stderr, strings.Join(all[max(0, len(all)-lines):], "\n"))
		return err
	}
	if ask(40, "get", "pods", "--all-namespaces") != nil {
		return // nobody answers
	}
	ask(40, "get", "events", "--all-namespaces", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")
	const unready = `{{range .items}}{{$pod := .metadata}}{{range .status.containerStatuses}}{{if not .ready}}{{$pod.namespace}} {{$pod.name}} {{.name}}{{"\n"}}{{end}}{{end}}{{end}}`
	listed, _ := c.node.Kubectl(ctx, nil, "get", "pods", "--all-namespaces", "--field-selector=status.phase!=Succeeded", "--output=go-template="+unready)
	for line := range strings.Lines(listed) {
		words := strings.Fields(line)
		fmt.Fprintln(c.stderr, "\n"+strings.TrimSpace(line)+":")
		ask(10, "logs", "--namespace", words[0], words[1], "--container", words[2], "--tail=10")
	}
}

// build builds what the node runs and what its pods run.
func (c *cluster) build(ctx context.Context) (platform map[string]image.Image, err error) {
	programs, err := build.All(ctx, c.say)
	if err != nil {
		return nil, err
	}
	own, err := build.Own(ctx, "./infra/cluster/pause")
	if err != nil {
		return nil, err
	}
	programs["pause/pause"] = filepath.Join(own, "pause")
	platform, err = install.Images(programs)
	if err != nil {
		return nil, err
	}
	c.node.Program = func(name string) string { return cmp.Or(programs["kubernetes/"+name], programs[name+"/"+name]) }
	c.node.Pause = platform["pause"].Ref()
	return platform, nil
}

func (c *cluster) fill(ctx context.Context, platform map[string]image.Image) error {
	if err := (install.Platform{Node: c.node, Images: platform, Say: c.say}).Install(ctx); err != nil {
		return err
	}
	if c.bare {
		return nil
	}
	return system.System{Node: c.node, Say: c.say}.Install(ctx)
}

func (c *cluster) down(context.Context) error { // an interrupted down would be half a down
	unlock, err := node.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(c.node.Stop(), node.FinishInstall())
}

func (c *cluster) status(context.Context) error {
	if err := c.isUp(); err != nil {
		return err
	}
	c.exports()
	return nil
}

func (c *cluster) cold(ctx context.Context) error {
	if err := c.isUp(); err != nil {
		return err
	}
	unlock, err := node.Lock() // up would change what is measured
	if err != nil {
		return err
	}
	defer unlock()
	if c.burst != 0 {
		return cold.Burst(ctx, c.node, c.burst, c.say, c.stdout)
	}
	return cold.Measure(ctx, c.node, c.times, c.with, c.say, c.stdout)
}

func (c *cluster) isUp() error {
	switch state, err := c.node.State(); {
	case err != nil:
		return err
	case state == node.Down:
		return errDown
	case state == node.Coming:
		return fmt.Errorf("%w, or not up yet", errDown)
	}
	return nil
}

// exports prints what a shell needs to reach the cluster.
func (c *cluster) exports() {
	fmt.Fprintf(c.stdout, "export KUBECONFIG=%s\nexport KUBECACHEDIR=%s\nexport BASE_URL=%s\nexport KINGRESS_URL=%s\nexport INSIDE_URL=%s\nexport PATH=%s:$PATH\nexport NO_PROXY=\"${NO_PROXY:-},%s\"\nexport no_proxy=\"${no_proxy:-},%s\"\n",
		c.node.Kubeconfig(), c.node.KubectlCache(), install.BaseURL, install.KnativeURL, install.InsideURL, c.node.Bin(), node.NoProxy, node.NoProxy)
}
