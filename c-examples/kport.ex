defmodule Kport do
  @moduledoc """
  Publishes ports of FreeBSD jails, as Kleene's daemon would: `kport_nif.c` is next to this file.

  Options are a map with any of `backend`, `state_dir`, `addresses`, `gateway`, `reach` (binaries) and `jid` (an integer).
  """
  @on_load :load

  @type status ::
          :argument | :spec | :conflict | :permission | :unavailable | :busy | :system | :unsupported | :internal
  @type failure :: {:error, {status, String.t()}}

  def load do
    :erlang.load_nif(:os.getenv(~c"KPORT_NIF", ~c"./kport_nif"), 0)
  end

  @doc "Publishes all of a jail's ports, or none; replaces what it had published."
  @spec publish(String.t(), String.t(), map) :: :ok | failure
  def publish(_jail, _specs, _options), do: :erlang.nif_error(:not_loaded)

  @doc "Removes everything that a jail has published."
  @spec unpublish(String.t(), map) :: :ok | failure
  def unpublish(_jail, _options), do: :erlang.nif_error(:not_loaded)

  @doc "Every published redirect."
  @spec list(map) :: {:ok, [{String.t() | nil, String.t() | nil, integer, String.t() | nil, integer, integer}]} | failure
  def list(_options), do: :erlang.nif_error(:not_loaded)
end
