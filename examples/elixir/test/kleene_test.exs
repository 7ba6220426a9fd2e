defmodule Kport.KleeneTest do
  # What the daemon does, with the simulator in place of pf.
  use ExUnit.Case, async: true

  alias Kport.Kleene

  setup do
    dir = Path.join(System.tmp_dir!(), "kport-#{System.unique_integer([:positive])}-#{System.pid()}")
    File.mkdir_p!(dir)
    File.chmod!(dir, 0o700)
    on_exit(fn -> File.rm_rf!(dir) end)
    {:ok, options: %{backend: "sim", state_dir: dir, gateway: "em0"}}
  end

  defp port(host, container, more \\ %{}) do
    Map.merge(
      %{
        interfaces: [],
        host_port: host,
        container_port: container,
        protocol: "tcp",
        ip_address: "10.0.0.2",
        ip_address6: ""
      },
      more
    )
  end

  defp published(options) do
    {:ok, rows} = Kport.list(nil, Map.take(options, [:backend, :state_dir]))
    for row <- rows, do: {row.jail, row.protocol, row.place, row.host_port, row.address, row.jail_port, row.count}
  end

  test "a container starts, runs, and ends", %{options: options} do
    ports = [port("8000:8010", "9000:*"), port("5353", "53", %{protocol: "udp", interfaces: ["em1"]})]
    assert :ok = Kleene.check(ports)
    assert :ok = Kleene.start("3f2a-77aa10", ports, options)

    assert published(options) == [
             {"3f2a-77aa10", :tcp, "em0", 8000, "10.0.0.2", 9000, 11},
             {"3f2a-77aa10", :udp, "em1", 5353, "10.0.0.2", 53, 1}
           ]

    # a network is connected: another address
    assert :ok = Kleene.start("3f2a-77aa10", [port("8080", "80", %{ip_address: "10.1.0.2"})], options)
    assert published(options) == [{"3f2a-77aa10", :tcp, "em0", 8080, "10.1.0.2", 80, 1}]

    # a stop, and then the end of the process
    assert :ok = Kleene.stop("3f2a-77aa10", options)
    assert :ok = Kleene.stop("3f2a-77aa10", options)
    assert published(options) == []
  end

  test "a port of another container is refused, and the text says whose it is", %{options: options} do
    assert :ok = Kleene.start("one", [port("8080", "80")], options)
    assert {:error, text} = Kleene.start("two", [port("8080", "80", %{ip_address: "10.0.0.3"})], options)
    assert text =~ "one"
    assert [{"one", :tcp, "em0", 8080, "10.0.0.2", 80, 1}] = published(options)
    assert :ok = Kleene.start("one", [], options)
    assert :ok = Kleene.start("two", [port("8080", "80", %{ip_address: "10.0.0.3"})], options)
  end

  test "what Kleened takes and cannot publish names the record" do
    for {host, container} <- [{"0", "80"}, {"8010:8000", "9000:*"}, {"8000:8010", "80"}, {"80\"", "80"}] do
      assert {:error, text} = Kleene.check([port("80", "80"), port(host, container)])
      assert text =~ "record 2"
    end

    assert :ok = Kleene.check([])
  end

  test "options are checked, and everything of the library is there", %{options: options} do
    assert_raise ArgumentError, fn -> Kport.publish("web", "8080:80", Map.put(options, :sorces, "10.0.0.0/8")) end
    assert_raise ArgumentError, fn -> Kport.publish("web", "8080:80", Map.put(options, :hairpin, 1)) end
    assert_raise ArgumentError, fn -> Kport.list(nil, Map.put(options, :timeout_ms, "4000")) end

    all =
      Map.merge(options, %{
        addresses: "10.0.0.2",
        sources: "192.0.2.0/24",
        reach: "bridge0",
        max_connections: 10,
        max_connections_per_source: 2,
        rate_connections: 5,
        rate_seconds: 10,
        jid: 7,
        auto_first: 50000,
        auto_last: 50009,
        log: true,
        no_quick: false,
        allow_inert: true
      })

    assert {:ok, %{changed: true, ended: 0, ports: [entry]}} = Kport.publish("web", "auto:80", all)
    assert entry.host_port in 50000..50009
    assert {:ok, [%{jid: 7, state: :live, jail: "web", anchor: "kport/web"}]} = Kport.list("web", options)
    assert {:ok, %{changed: true}} = Kport.publish("web", "8080:80", Map.put(all, :add, true))
    assert {:ok, text} = Kport.rules("web", "8080:80", all)
    assert text =~ "192.0.2.0/24" and text =~ "max 10" and text =~ "log"
    assert {:ok, %{changed: true}} = Kport.unpublish_some("web", "8080:80", all)
    assert {:ok, %{changed: false}} = Kport.restore(options)
    # a stop of another start
    assert {:ok, %{changed: false, notes: [_]}} = Kport.unpublish("web", Map.put(options, :jid, 6))
    assert {:ok, %{changed: true}} = Kport.unpublish("web", Map.put(options, :jid, 7))
    assert {:ok, "em0:53:53/udp"} = Kport.check("em0:53:53/udp")
    assert {:error, {:spec, _}} = Kport.check("em0:53")
    # this machine has no jails to ask for, or does
    assert match?({:error, {:unsupported, _}}, Kport.gc(options)) or match?({:ok, _}, Kport.gc(options))
  end

  test "fifty containers at once", %{options: options} do
    start = fn n ->
      ports = [port("#{10000 + n}", "80", %{ip_address: "10.0.0.#{n}"})]
      Kleene.start("container#{n}", ports, Map.put(options, :timeout_ms, 30_000))
    end

    assert 1..50 |> Task.async_stream(start, max_concurrency: 50, timeout: 60_000) |> Enum.all?(&(&1 == {:ok, :ok}))
    assert length(published(options)) == 50
  end

  test "what is published is kept true in this process", %{options: options} do
    config = Path.join(options.state_dir, "kport.conf")
    File.write!(config, "guest em0:8080:80 --no-jail -a 10.0.0.9\n")
    {:ok, watch} = Kport.watch_open(config, Map.take(options, [:backend, :state_dir]))
    assert {:ok, report} = Kport.watch_next(watch)
    assert report =~ ~s("what":"published") and report =~ ~s("jail":"guest")
    assert {:ok, nil} = idle(watch)
    assert_receive {:select, ^watch, :undefined, :ready_input}, 5000

    File.write!(config, "")
    :ok = Kport.watch_reload(watch)
    assert {:ok, report} = idle(watch, &is_binary/1)
    assert report =~ ~s("what":"unpublished")
    assert :ok = Kport.watch_close(watch)
    assert {:error, {:argument, _}} = Kport.watch_next(watch)
    assert published(options) == []
  end

  # calls it until there is such a result
  defp idle(watch, fits \\ &is_nil/1) do
    {:ok, report} = Kport.watch_next(watch)
    if fits.(report), do: {:ok, report}, else: idle(watch, fits)
  end
end
