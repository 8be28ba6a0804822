%% A client that knows nothing of heartwheel: escript fleet.erl 4|line HOST PORT
%% It sends hello, prints what comes, beats with an empty packet or PING, and answers
%% PING with PONG.
-export([main/1]).

main([Packet, Host, Port]) ->
    Mode = case Packet of "line" -> line; N -> list_to_integer(N) end,
    Options = [binary, {packet, Mode}, {nodelay, true}, {active, true}],
    {ok, Socket} = gen_tcp:connect(Host, list_to_integer(Port), Options),
    {End, Beat} = case Mode of line -> {<<"\n">>, <<"PING\n">>}; _ -> {<<>>, <<>>} end,
    ok = gen_tcp:send(Socket, <<"hello", End/binary>>),
    {ok, _} = timer:send_interval(100, beat),
    loop(Socket, Beat).

loop(Socket, Beat) ->
    receive
        beat -> ok = gen_tcp:send(Socket, Beat);
        {tcp, Socket, <<"PING\n">>} -> ok = gen_tcp:send(Socket, <<"PONG\n">>);
        {tcp, Socket, Data} -> io:format("got ~p~n", [Data]);
        {tcp_error, Socket, Why} -> io:format("lost: ~p~n", [Why]);
        {tcp_closed, Socket} -> io:format("closed~n"), halt(0)
    end,
    loop(Socket, Beat).
