package main

import (
	"fmt"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

func newConsoleCommand(c *cluster) *cobra.Command {
	r := request{kind: v1alpha1.ConsoleGraphical, client: v1alpha1.ConsoleClientBrowser}
	var browse, text bool
	command := &cobra.Command{
		Use:   "console INSTANCE",
		Short: "Print the URL of an instance's console, or open it",
		Args:  oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if text {
				r.kind = v1alpha1.ConsoleText
			}
			console, err := r.connect(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if !browse {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), console.url)
				return err
			}
			return openBrowser(cmd, console.url)
		},
	}
	r.register(command.Flags())
	command.Flags().BoolVar(&r.viewOnly, "view-only", false, "only look: no key, pointer or clipboard reaches the guest")
	command.Flags().BoolVar(&text, "text", false, "the serial line instead of the screen")
	command.Flags().BoolVar(&browse, "open", false, "open it in the browser instead of printing it")
	return command
}

func openBrowser(cmd *cobra.Command, url string) error {
	program := map[string][]string{
		"darwin":  {"open"},
		"windows": {"rundll32", "url.dll,FileProtocolHandler"},
	}[runtime.GOOS]
	if program == nil {
		program = []string{"xdg-open"}
	}
	if err := exec.CommandContext(cmd.Context(), program[0], append(program[1:], url)...).Run(); err != nil {
		return fmt.Errorf("start the browser (%s): %w; without --open the URL is printed", program[0], err)
	}
	return nil
}
