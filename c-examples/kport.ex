defmodule Kport do
  @moduledoc """
  Publishes ports of FreeBSD jails: the functions of kport(3), through the NIF in `kport_nif.c`.

  Options are a map. Strings: `backend`, `state_dir`, `addresses`, `gateway`, `reach`, `sources`, `reply_to`, `trust`, `families`.
  Numbers: `timeout_ms`, `wait_ms`, `max_connections`, `max_connections_per_source`, `rate_connections`, `rate_seconds`, `jid`,
  `auto_first`, `auto_last`. Flags, true or false: `force`, `allow_inert`, `hairpin`, `host_access`, `log`, `no_quick`, `add`,
  `no_jail`, `masquerade`, `af_to`. An unknown option, or a value of
  another type, is an ArgumentError.

  Calls can wait for locks and for pf, up to `timeout_ms`. They run on dirty I/O schedulers and do not block other processes.
  """
  @on_load :load

  @type status ::
          :argument | :spec | :conflict | :permission | :unavailable | :busy | :system | :unsupported | :internal
  @type failure :: {:error, {status, String.t()}}
  @type port_entry :: %{
          jail: String.t() | nil,
          anchor: String.t() | nil,
          place: String.t() | nil,
          protocol: :tcp | :udp | :sctp,
          host_port: non_neg_integer,
          address: String.t() | nil,
          jail_port: non_neg_integer,
          count: non_neg_integer,
          jid: integer,
          state: :live | :inert | :missing | :stale,
          packets: non_neg_integer,
          bytes: non_neg_integer,
          states: non_neg_integer
        }
  @type outcome :: %{
          changed: boolean,
          ended: non_neg_integer,
          notes: [String.t()],
          ports: [port_entry]
        }

  def load do
    :erlang.load_nif(:os.getenv(~c"KPORT_NIF", ~c"./kport_nif"), 0)
  end

  @doc "Checks specs, and returns them with every field."
  @spec check(String.t()) :: {:ok, String.t()} | failure
  def check(_specs), do: :erlang.nif_error(:not_loaded)

  @doc "Checks Kleene's records, JSON, like `check/1`."
  @spec check_kleene(String.t()) :: {:ok, String.t()} | failure
  def check_kleene(_json), do: :erlang.nif_error(:not_loaded)

  @doc "Publishes all ports of a jail, or none. They replace those that it had published."
  @spec publish(String.t(), String.t(), map) :: {:ok, outcome} | failure
  def publish(_jail, _specs, _options), do: :erlang.nif_error(:not_loaded)

  @doc "Publishes Kleene's records, JSON, like `publish/3`; their addresses are the jail's unless `addresses` is given."
  @spec publish_kleene(String.t(), String.t(), map) :: {:ok, outcome} | failure
  def publish_kleene(_jail, _json, _options), do: :erlang.nif_error(:not_loaded)

  @doc "Removes all ports of a jail. It is not an error if there are none."
  @spec unpublish(String.t(), map) :: {:ok, outcome} | failure
  def unpublish(_jail, _options), do: :erlang.nif_error(:not_loaded)

  @doc "Removes these mappings of a jail."
  @spec unpublish_some(String.t(), String.t(), map) :: {:ok, outcome} | failure
  def unpublish_some(_jail, _specs, _options), do: :erlang.nif_error(:not_loaded)

  @doc "Loads the rules that a flush of kport's anchors removed."
  @spec restore(map) :: {:ok, outcome} | failure
  def restore(_options), do: :erlang.nif_error(:not_loaded)

  @doc "Removes the ports of jails that are gone."
  @spec gc(map) :: {:ok, outcome} | failure
  def gc(_options), do: :erlang.nif_error(:not_loaded)

  @doc "Returns the rules that would be loaded, as pf.conf(5) text."
  @spec rules(String.t(), String.t(), map) :: {:ok, String.t()} | failure
  def rules(_jail, _specs, _options), do: :erlang.nif_error(:not_loaded)

  @doc "Returns the published redirects of one jail, or of all (nil)."
  @spec list(String.t() | nil, map) :: {:ok, [port_entry]} | failure
  def list(_jail, _options), do: :erlang.nif_error(:not_loaded)

  @doc """
  Begins to keep what is published true: `kport watch` in this process. `config` is the kport.conf(5), nil for the default. It ends
  with this process, and leaves what is published.
  """
  @spec watch_open(String.t() | nil, map) :: {:ok, reference} | failure
  def watch_open(_config, _options), do: :erlang.nif_error(:not_loaded)

  @doc """
  Does what there is to do, at most for one jail, and returns one report, a line of JSON. After nil, this process gets the message
  `{:select, watch, :undefined, :ready_input}` when there is more.
  """
  @spec watch_next(reference) :: {:ok, String.t() | nil} | failure
  def watch_next(_watch), do: :erlang.nif_error(:not_loaded)

  @doc "The next `watch_next/1` reads kport.conf(5) again, and applies it."
  @spec watch_reload(reference) :: :ok
  def watch_reload(_watch), do: :erlang.nif_error(:not_loaded)

  @doc "Ends a watch."
  @spec watch_close(reference) :: :ok
  def watch_close(_watch), do: :erlang.nif_error(:not_loaded)
end
