// A heartwheel client: node heartbeat.mjs [HOST:PORT [HELLO]], HELLO as in '{"token": "t0k", "beats": "server"}'.
// Lines of stdin go out as DATA, DATA that comes is printed, state changes go to stderr. Exit 1: told not to come back.
import net from 'node:net'
import { createInterface } from 'node:readline'
const [PING, PONG, DATA, HELLO, WELCOME, CONFIG, GOAWAY, CLOSE, ERROR] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
const MAX_FRAME = 65_536, DEAD_AFTER = 10_000, STABLE_AFTER = 30_000, LONGEST_RETRY = 30_000 // bytes, then milliseconds
const now = () => performance.now(), say = text => process.stderr.write(text + '\n')
const random = (from, to) => from + Math.random() * (to - from)
const [home = '127.0.0.1:9000', hello = '{}'] = process.argv.slice(2)
const terms = { beats: 'client', beat_ms: 15e3, timeout_ms: 37.5e3, min_beat_ms: 100, spread_ms: 5e3, max_frame: MAX_FRAME }
let addr = home, retry = 0, sock, began, buffer, ending // retry: 0 is the spread; ending: code, text, ms to stay away, addr
let sent, pause, heard, asked, timer // two clocks: sent says when to beat, heard whether the server lives
function connect() {
  say(`connecting to ${addr}`)
  const colon = addr.lastIndexOf(':'), host = addr.slice(0, colon).replace(/^\[|\]$/g, ''), port = addr.slice(colon + 1)
  sock = net.connect({ host, port, noDelay: true }).on('data', receive).on('close', closed)
  sock.on('error', e => { ending[1] = e.message }).on('drain', () => process.stdin.resume())
  began = now(), buffer = Buffer.alloc(0), ending = [3000, 'the server closed the connection']
  send(HELLO, JSON.stringify({ v: 1, ...JSON.parse(hello) })) // waits for the connection
  heard = asked = sent // asked: when the oldest question without an answer was sent; 0: none
  watch()
}
function send(op, payload = '') { // no op: the empty frame. Any frame replaces a beat: the next is due H ± 10 % later
  const frame = Buffer.concat([Buffer.from(op ? [0, 0, 0, 0, op] : [0, 0, 0, 0]), Buffer.from(payload)])
  frame.writeUInt32BE(frame.length - 4)
  sent = now(), pause = Math.max(terms.beat_ms * random(0.9, 1.1), terms.min_beat_ms)
  if (!sock.write(frame)) process.stdin.pause() // until 'drain'
}
const due = () => asked ? asked + DEAD_AFTER : heard + terms.timeout_ms
const wake = () => terms.beats === 'server' ? due() : Math.min(due(), sent + pause)
function watch() { // what has come when the timer runs is read before the immediate runs, which judges
  clearTimeout(timer)
  if (!sock.destroyed) timer = setTimeout(() => setImmediate(judge, now()), Math.min(wake() - now(), 60_000))
}
function judge(at) {
  if (asked && at >= asked + DEAD_AFTER) return finish(3012, 'the server is dead: no byte for 10 s after a beat')
  if (at >= wake()) asked ||= at, send(terms.beats === 'server' && PING)
  watch()
}
const finish = (...how) => { ending = how, how[0] === 3012 && !sock.connecting ? sock.resetAndDestroy() : sock.destroy() }
function receive(chunk) {
  heard = now(), asked = 0, buffer = Buffer.concat([buffer, chunk])
  while (!sock.destroyed && buffer.length >= 4) {
    const end = 4 + buffer.readUInt32BE(), body = buffer.subarray(4, end)
    if (end > 4 + MAX_FRAME) return finish(3511, `a frame of ${end - 4} bytes: is this heartwheel?`)
    if (buffer.length < end) break
    buffer = buffer.subarray(end)
    try { act(body[0], body.subarray(1)) } catch (e) { finish(3501, e.message) }
  }
  watch()
}
function act(op, payload) {
  const json = [WELCOME, CONFIG, GOAWAY].includes(op) && JSON.parse(payload)
  if (op === undefined && terms.beats === 'server') send() // else it is the answer to ours
  else if (op === PING) send(PONG, payload)
  else if (op === DATA) process.stdout.write(payload + '\n')
  else if (op === GOAWAY) finish(json.code, json.reason, json.after_ms, json.addr)
  else if (op === CLOSE) finish(payload.length ? payload.readUInt16BE() : 3000, payload.subarray(2))
  else if (op === ERROR) say(`refused: ${payload.subarray(2)}`)
  else if (json) { // what is absent or 0 stays; the first beat comes after H × U(0.5, 1)
    for (const k in terms) if (json[k] && typeof json[k] === typeof terms[k]) terms[k] = json[k]
    pause = terms.beat_ms * random(0.5, 1), process.stdin.resume()
    say(`connected: the ${terms.beats} beats every ${terms.beat_ms} ms`)
  } else if (op === 0 || op > 14 && op < 64 || op > 127) finish(3501, `no such op: ${op}`)
}
function closed() {
  clearTimeout(timer), process.stdin.pause() // lines wait for the next connection
  const [code, text, after, elsewhere] = ending
  const again = code >= 3000 && code < 3500 || code >= 4000 && code < 4500
  if (!again) say(`stopped for good: ${code} ${text}`), process.exit(1)
  if (now() - began >= STABLE_AFTER) retry = 0
  const delay = (after || 0) + random(0, retry || terms.spread_ms)
  say(`lost: ${text}; next try in ${(delay / 1000).toFixed(1)} s`)
  addr = elsewhere || home, retry = Math.min(2 * retry || 500, LONGEST_RETRY)
  setTimeout(connect, delay)
}
const sendLine = line => send(DATA, Buffer.from(line).subarray(0, terms.max_frame - 1)) // more would be refused, for good
createInterface({ input: process.stdin }).on('line', sendLine).pause() // until WELCOME
connect()
