//go:build linux

// Command cluster starts a real Kubernetes with Knative Serving and Eventing, and the
// whole system on it. It needs a plain Linux machine and root, but no Docker:
//
//	go run ./infra/cluster up       # run it again to install changes
//	go run ./infra/cluster status
//	go run ./infra/cluster down
//
// Package build builds most programs from Go modules. The others, containerd, runc and
// etcd, are packages of the distribution. The cluster runs in its own namespaces. After
// down, and after an up that fails or is interrupted, only the build cache remains.
//
// It is for tests, for CI, and for machines without Docker. With Docker, use kind (see
// infra/docs/development.md). Do not store data in it.
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
	// A plain su omits these folders from PATH, and the node's programs search them.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	// Connections to the cluster must not use a proxy.
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		os.Setenv(name, strings.TrimPrefix(os.Getenv(name)+",", ",")+node.NoProxy)
	}
	// The reader of the output, such as tee, may end at Ctrl-C before the cluster does.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	// A second signal has its default effect.
	ctx, restore := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, restore)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command and returns the exit code. The code is 0 after success, 1 when
// the cluster is down or not up yet, and 2 after a one-line error. It is 3 if no cluster
// can run on this host. A line then gives the reason.
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
	if c.node.Dir, err = node.ResolveDir(c.node.Dir); err == nil {
		err = do(ctx)
	}
	switch { // errors go to stderr because a shell evaluates stdout
	case errors.Is(err, errDown):
		fmt.Fprintf(stderr, "cluster %s: %v\n", command, err)
		return 1
	case errors.Is(err, node.ErrUnsupported):
		fmt.Fprintf(stderr, "cluster %s: %v\n", command, err)
		return 3
	case err != nil:
		fmt.Fprintf(stderr, "cluster %s: %v\n", command, err)
		return 2
	}
	return 0
}

var errDown = errors.New("the cluster is down")

// A cluster is the only cluster of this machine, with the flags and outputs of the
// command.
type cluster struct {
	node           node.Node
	install, bare  bool
	times, burst   int
	with           []string
	stdout, stderr io.Writer
	began          time.Time
}

// progress prints a message with the time since the start of the command.
func (c *cluster) progress(message string) {
	fmt.Fprintf(c.stderr, "%7s  %s\n", time.Since(c.began).Round(100*time.Millisecond), message)
}

func (c *cluster) up(ctx context.Context) error {
	unlock, err := node.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.node.State(); err != nil { // report a foreign cluster before the long build
		return err
	}
	if err := node.EnsureRequirements(ctx, c.install, c.stderr); err != nil {
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
		c.progress("The cluster is up already: installing the changes.")
		if err := c.installAll(ctx, platform); err != nil {
			return err
		}
		c.printExports()
		return nil
	}
	running, err := c.node.Start(ctx)
	if err != nil {
		return err
	}
	c.progress("The API server is ready.")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { <-running.Done(); cancel(running.Err()) }()
	if err := c.installAll(ctx, platform); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else {
			c.printDiagnostics()
		}
		stopped := running.Stop()
		if stopped == nil {
			c.progress("The cluster is removed.")
		}
		return errors.Join(err, stopped)
	}
	if err := running.Detach(); err != nil {
		return errors.Join(err, running.Stop())
	}
	c.printExports()
	return nil
}

// printDiagnostics prints the pods, the warning events, and the last log lines of every
// pod that is not ready. A failed up removes the cluster and its logs afterwards.
func (c *cluster) printDiagnostics() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	printTail := func(lines int, args ...string) error {
		output, err := c.node.Kubectl(ctx, nil, args...)
		if err != nil {
			output = err.Error()
		}
		all := strings.Split(strings.TrimSpace(output), "\n")
		fmt.Fprintln(c.stderr, strings.Join(all[max(0, len(all)-lines):], "\n"))
		return err
	}
	if printTail(40, "get", "pods", "--all-namespaces") != nil {
		return // the API server does not respond
	}
	printTail(40, "get", "events", "--all-namespaces", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")
	const unready = `{{range .items}}{{$pod := .metadata}}{{range .status.containerStatuses}}{{if not .ready}}{{$pod.namespace}} {{$pod.name}} {{.name}}{{"\n"}}{{end}}{{end}}{{end}}`
	listed, _ := c.node.Kubectl(ctx, nil, "get", "pods", "--all-namespaces", "--field-selector=status.phase!=Succeeded", "--output=go-template="+unready)
	for line := range strings.Lines(listed) {
		words := strings.Fields(line)
		fmt.Fprintln(c.stderr, "\n"+strings.TrimSpace(line)+":")
		printTail(10, "logs", "--namespace", words[0], words[1], "--container", words[2], "--tail=10")
	}
}

// build builds the programs of the node and of its pods.
func (c *cluster) build(ctx context.Context) (platform map[string]image.Image, err error) {
	programs, err := build.All(ctx, c.progress)
	if err != nil {
		return nil, err
	}
	own, err := build.Workspace(ctx, "./infra/cluster/pause")
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

func (c *cluster) installAll(ctx context.Context, platform map[string]image.Image) error {
	if err := (install.Platform{Node: c.node, Images: platform, Progress: c.progress}).Install(ctx); err != nil {
		return err
	}
	if c.bare {
		return nil
	}
	return system.System{Node: c.node, Progress: c.progress}.Install(ctx)
}

func (c *cluster) down(context.Context) error { // without the context, so that an interrupt does not leave half a cluster
	unlock, err := node.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(c.node.Stop(), node.FinishInstall())
}

func (c *cluster) status(context.Context) error {
	if err := c.checkUp(); err != nil {
		return err
	}
	c.printExports()
	return nil
}

func (c *cluster) cold(ctx context.Context) error {
	if err := c.checkUp(); err != nil {
		return err
	}
	unlock, err := node.Lock() // a concurrent up would distort the measurement
	if err != nil {
		return err
	}
	defer unlock()
	if c.burst != 0 {
		return cold.Burst(ctx, c.node, c.burst, c.progress, c.stdout)
	}
	return cold.Measure(ctx, c.node, c.times, c.with, c.progress, c.stdout)
}

func (c *cluster) checkUp() error {
	switch state, err := c.node.State(); {
	case err != nil:
		return err
	case state == node.Down:
		return errDown
	case state == node.Starting:
		return fmt.Errorf("%w, or not up yet", errDown)
	}
	return nil
}

// printExports prints the environment variables that a shell needs to reach the cluster.
func (c *cluster) printExports() {
	fmt.Fprintf(c.stdout, "export KUBECONFIG=%s\nexport KUBECACHEDIR=%s\nexport BASE_URL=%s\nexport KINGRESS_URL=%s\nexport INSIDE_URL=%s\nexport PATH=%s:$PATH\nexport NO_PROXY=\"${NO_PROXY:-},%s\"\nexport no_proxy=\"${no_proxy:-},%s\"\n",
		c.node.Kubeconfig(), c.node.KubectlCache(), install.BaseURL, install.KnativeURL, install.InsideURL, c.node.Bin(), node.NoProxy, node.NoProxy)
}
