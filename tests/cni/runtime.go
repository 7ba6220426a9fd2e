// A container runtime in one file: the commands of cnitool, over the library that podman, buildah and nerdctl use.
//
//	runtime add|check|del|validate CONFLIST CONTAINER NETNS IFNAME [CAPABILITIES]
//	runtime versions PLUGIN
//	runtime raw COMMAND PLUGIN < CONFIGURATION
//
// CNI_PATH names the directories of the plugins, CNI_CACHE that of the library's cache. It prints the result of add, or the
// versions, as JSON; what fails goes to standard error with status 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	path := filepath.SplitList(os.Getenv("CNI_PATH"))
	if len(args) == 2 && args[0] == "versions" {
		info, err := invoke.GetVersionInfo(ctx, args[1], nil)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(info.SupportedVersions())
	}
	if len(args) == 3 && args[0] == "raw" {
		config, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return invoke.ExecPluginWithoutResult(ctx, args[2], config, &invoke.Args{Command: args[1], Path: "/"}, nil)
	}
	if len(args) < 5 {
		return errors.New("usage: runtime add|check|del|validate CONFLIST CONTAINER NETNS IFNAME [CAPABILITIES]")
	}
	list, err := libcni.ConfListFromFile(args[1])
	if err != nil {
		return err
	}
	rt := &libcni.RuntimeConf{ContainerID: args[2], NetNS: args[3], IfName: args[4]}
	// as podman does
	rt.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "name-of-" + args[2]}}
	if len(args) > 5 {
		if err := json.Unmarshal([]byte(args[5]), &rt.CapabilityArgs); err != nil {
			return err
		}
	}
	cni := libcni.NewCNIConfigWithCacheDir(path, os.Getenv("CNI_CACHE"), nil)
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
	case "validate":
		capabilities, err := cni.ValidateNetworkList(ctx, list)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(capabilities)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
