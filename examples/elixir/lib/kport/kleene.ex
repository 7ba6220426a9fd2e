defmodule Kport.Kleene do
  @moduledoc """
  What Kleene's daemon calls instead of its own rules for published ports.

  * `start/3` after a container's network is set up and before `jail -c`, and again when a network is connected or disconnected while
    it runs: the set is replaced in one transaction;
  * `stop/2` in `Container.cleanup_container/1`, which runs after a stop and after the end of the process;
  * `boot/1` when the daemon starts;
  * `check/1` in place of `validate_pubports/1`.

  Ports are `PublishedPort` structs or maps, unchanged. A call returns within 4 s, less than the 5 s of `GenServer.call`, unless the
  options have another `timeout_ms`.
  """

  @fields [:interfaces, :host_port, :container_port, :protocol, :ip_address, :ip_address6]
  @timeout_ms 4000

  @type ports :: [map]

  @doc "Publishes all ports of a container, or none. An empty list unpublishes."
  @spec start(String.t(), ports, map) :: :ok | {:error, String.t()}
  def start(container_id, ports, options \\ %{})

  def start(container_id, [], options), do: stop(container_id, options)

  def start(container_id, ports, options) do
    Kport.publish_kleene(container_id, encode(ports), below_call(options)) |> answer()
  end

  @doc "Unpublishes the ports of a container. It is not an error if there are none."
  @spec stop(String.t(), map) :: :ok | {:error, String.t()}
  def stop(container_id, options \\ %{}), do: Kport.unpublish(container_id, below_call(options)) |> answer()

  @doc "Loads rules that pf has lost, and removes the ports of containers that are gone."
  @spec boot(map) :: :ok | {:error, String.t()}
  def boot(options \\ %{}) do
    with :ok <- Kport.restore(below_call(options)) |> answer(), do: Kport.gc(below_call(options)) |> answer()
  end

  @doc "Checks ports before a container is created."
  @spec check(ports) :: :ok | {:error, String.t()}
  def check([]), do: :ok
  def check(ports), do: Kport.check_kleene(encode(ports)) |> answer()

  defp below_call(options), do: Map.put_new(options, :timeout_ms, @timeout_ms)

  defp answer({:ok, _}), do: :ok
  defp answer({:error, {_status, message}}), do: {:error, message}

  @doc "The records as JSON. They hold only strings and lists of strings."
  @spec encode(ports) :: String.t()
  def encode(ports), do: "[" <> Enum.map_join(ports, ",", &record/1) <> "]"

  defp record(port) do
    fields = port |> Map.delete(:__struct__) |> Map.take(@fields)
    "{" <> Enum.map_join(fields, ",", fn {name, value} -> ~s("#{name}":) <> value(value) end) <> "}"
  end

  defp value(nil), do: "null"
  defp value(list) when is_list(list), do: "[" <> Enum.map_join(list, ",", &value/1) <> "]"
  defp value(text) when is_atom(text), do: value(Atom.to_string(text))
  defp value(text) when is_binary(text), do: ~s(") <> for(<<c::utf8 <- text>>, into: "", do: character(c)) <> ~s(")

  defp character(?"), do: ~S(\")
  defp character(?\\), do: ~S(\\)
  defp character(c) when c < 0x20, do: "\\u" <> String.pad_leading(Integer.to_string(c, 16), 4, "0")
  defp character(c), do: <<c::utf8>>
end
