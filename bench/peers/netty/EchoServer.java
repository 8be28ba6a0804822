import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.LengthFieldBasedFrameDecoder;
import io.netty.handler.timeout.IdleStateEvent;
import io.netty.handler.timeout.IdleStateHandler;
import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryUsage;
import java.net.InetSocketAddress;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import sun.misc.Signal;

/**
 * The Netty peer: LengthFieldBasedFrameDecoder and IdleStateHandler, the rest as
 * Netty's own echo example and the class comments of the two have it.
 *
 * <p>Arguments: HOST PORT TIMEOUT_MS LOOPS. The contract is that of package peer.
 */
public final class EchoServer {
    private static final int HEADER = 4;
    private static final int MAX_FRAME = 64 << 10;

    private static final AtomicLong connections = new AtomicLong();

    public static void main(String[] args) {
        String host = args[0];
        int port = Integer.parseInt(args[1]);
        long timeout = Long.parseLong(args[2]);
        int loops = Integer.parseInt(args[3]);
        try {
            serve(host, port, timeout, loops);
        } catch (Exception e) {
            System.err.println(e);
            Runtime.getRuntime().halt(1); // event loops would keep the process alive
        }
    }

    private static void serve(String host, int port, long timeout, int loops) throws Exception {
        Signal.handle(new Signal("TERM"), s -> Runtime.getRuntime().halt(0));
        Signal.handle(new Signal("INT"), s -> Runtime.getRuntime().halt(0));
        Signal.handle(new Signal("USR1"), s -> report());

        EventLoopGroup boss = new NioEventLoopGroup(1);
        EventLoopGroup workers = new NioEventLoopGroup(loops);
        // The backlog is net.core.somaxconn unless set otherwise.
        Channel server = new ServerBootstrap()
                .group(boss, workers)
                .channel(NioServerSocketChannel.class)
                .childOption(ChannelOption.TCP_NODELAY, true)
                .childHandler(new ChannelInitializer<SocketChannel>() {
                    @Override
                    protected void initChannel(SocketChannel ch) {
                        ch.pipeline()
                                // The length of the whole frame, which stays whole.
                                .addLast(new LengthFieldBasedFrameDecoder(HEADER + MAX_FRAME, 0, HEADER, 0, 0))
                                // Behind the decoder: only whole frames refresh it.
                                .addLast(new IdleStateHandler(timeout, 0, 0, TimeUnit.MILLISECONDS))
                                .addLast(new Echo());
                    }
                })
                .bind(host, port).sync().channel();
        InetSocketAddress addr = (InetSocketAddress) server.localAddress();
        System.out.println("listening " + addr.getAddress().getHostAddress() + ":" + addr.getPort());
        server.closeFuture().sync();
    }

    private static final class Echo extends ChannelInboundHandlerAdapter {
        @Override
        public void channelActive(ChannelHandlerContext ctx) {
            connections.incrementAndGet();
        }

        @Override
        public void channelInactive(ChannelHandlerContext ctx) {
            connections.decrementAndGet();
        }

        @Override
        public void channelRead(ChannelHandlerContext ctx, Object frame) {
            ctx.write(frame, ctx.voidPromise());
        }

        @Override
        public void channelReadComplete(ChannelHandlerContext ctx) {
            ctx.flush();
        }

        @Override
        public void userEventTriggered(ChannelHandlerContext ctx, Object event) {
            if (event instanceof IdleStateEvent) {
                ctx.close();
            }
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
            ctx.close(); // reset by the peer, or a frame that is too long
        }
    }

    // What the collections that this asks for have cost, to be left out.
    private static long forcedCount;
    private static long forcedMillis;

    /** Writes Figures of package peer as one line of JSON. */
    private static synchronized void report() {
        MemoryUsage before = ManagementFactory.getMemoryMXBean().getHeapMemoryUsage();
        MemoryUsage other = ManagementFactory.getMemoryMXBean().getNonHeapMemoryUsage();
        long[] gc = collections();
        long count = gc[0] - forcedCount;
        long millis = gc[1] - forcedMillis;
        System.gc();
        long[] after = collections();
        forcedCount += after[0] - gc[0];
        forcedMillis += after[1] - gc[1];
        long live = ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed();
        // With the parallel and the serial collector, time in collections is
        // time stopped; their CPU time is not known.
        System.out.printf(Locale.ROOT,
                "{\"heap_live\":%d,\"heap_inuse\":%d,\"stack_inuse\":0,\"sys\":%d,\"goroutines\":%d,"
                        + "\"gc_count\":%d,\"gc_cpu_seconds\":-1,\"gc_pause_seconds\":%.3f,\"connections\":%d}%n",
                live, before.getUsed(), before.getCommitted() + other.getCommitted(),
                ManagementFactory.getThreadMXBean().getThreadCount(), count, millis / 1e3, connections.get());
    }

    /** Returns the count of collections and the milliseconds spent in them. */
    private static long[] collections() {
        long[] sum = new long[2];
        for (GarbageCollectorMXBean gc : ManagementFactory.getGarbageCollectorMXBeans()) {
            sum[0] += gc.getCollectionCount();
            sum[1] += gc.getCollectionTime();
        }
        return sum;
    }
}
