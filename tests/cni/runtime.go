// What cnitool of the CNI project does, over the same library, which podman, buildah and nerdctl use, too. Debian has the
// library as golang-github-appc-cni-dev, and leaves the tool out.
//
//	runtime add|check|del NETWORK NETNS
//	runtime validate NETWORK
//	runtime versions PLUGIN
//	runtime raw COMMAND PLUGIN < CONFIGURATION
//
// The environment is cnitool's: CNI_PATH, NETCONFPATH, CNI_IFNAME, CAP_ARGS, CNI_ARGS; and beyond it CNI_CONTAINERID and
// CNI_CACHE, the directory of the library's cache. What fails goes to standard error, with the plugin's code.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		var plugin *types.Error
		if errors.As(err, &plugin) {
			fmt.Fprintf(os.Stderr, "code %d: ", plugin.Code)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx := context.Background()
	plugins := filepath.SplitList(os.Getenv("CNI_PATH"))
	switch {
	case len(args) == 2 && args[0] == "versions":
		info, err := invoke.GetVersionInfo(ctx, args[1], nil)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(info.SupportedVersions())
	case len(args) == 3 && args[0] == "raw":
		config, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return invoke.ExecPluginWithoutResult(ctx, args[2], config, &invoke.Args{Command: args[1], Path: "/"}, nil)
	case len(args) < 2:
		return errors.New("usage: runtime add|check|del NETWORK NETNS")
	}
	list, err := libcni.LoadConfList(os.Getenv("NETCONFPATH"), args[1])
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir(plugins, os.Getenv("CNI_CACHE"), nil)
	if args[0] == "validate" {
		capabilities, err := cni.ValidateNetworkList(ctx, list)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(capabilities)
	}
	rt, err := attachment(args)
	if err != nil {
		return err
	}
	switch args[0] {
	case "add":
		result, err := cni.AddNetworkList(ctx, list, rt)
		if err != nil {
			return err
		}
		return result.PrintTo(os.Stdout)
	case "check":
		return cni.CheckNetworkList(ctx, list, rt)
	case "del":
		return cni.DelNetworkList(ctx, list, rt)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func attachment(args []string) (*libcni.RuntimeConf, error) {
	if len(args) != 3 {
		return nil, errors.New("NETNS is missing")
	}
	netns, err := filepath.Abs(args[2])
	if err != nil {
		return nil, err
	}
	rt := &libcni.RuntimeConf{NetNS: netns, IfName: "eth0", ContainerID: "cnitool-" + filepath.Base(netns)}
	if ifname := os.Getenv("CNI_IFNAME"); ifname != "" {
		rt.IfName = ifname
	}
	if id := os.Getenv("CNI_CONTAINERID"); id != "" {
		rt.ContainerID = id
	}
	for _, pair := range strings.Split(os.Getenv("CNI_ARGS"), ";") {
		if key, value, found := strings.Cut(pair, "="); found {
			rt.Args = append(rt.Args, [2]string{key, value})
		}
	}
	if text := os.Getenv("CAP_ARGS"); text != "" {
		if err := json.Unmarshal([]byte(text), &rt.CapabilityArgs); err != nil {
			return nil, fmt.Errorf("CAP_ARGS: %w", err)
		}
	}
	return rt, nil
}
