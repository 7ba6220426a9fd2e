defmodule Kport.MixProject do
  use Mix.Project

  # No package is needed: the module of the NIF is in c-examples, the NIF itself is built from kport_nif.c there, and KPORT_NIF names
  # it, without ".so".
  def project do
    [
      app: :kport,
      version: "0.1.0",
      elixir: "~> 1.14",
      elixirc_paths: ["lib", Path.expand("../../c-examples", __DIR__)],
      deps: []
    ]
  end

  def application, do: [extra_applications: []]
end
