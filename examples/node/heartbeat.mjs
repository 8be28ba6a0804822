// A heartwheel client: node heartbeat.mjs [HOST:PORT [HELLO]]
//
// HELLO is JSON, such as '{"token": "t0k", "beats": "server"}'. Lines of standard input go out as
// DATA, received DATA is printed, changes of state go to standard error. Exit code 1: the server
// said not to reconnect.
import net from 'node:net'
import { createInterface } from 'node:readline'

const [PING, PONG, DATA, HELLO, WELCOME, CONFIG, GOAWAY, CLOSE, ERROR] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
const MAX_FRAME = 65_536 // bytes
const DEAD_AFTER = 10_000 // ms from a beat without a byte from the server
const STABLE_AFTER = 30_000 // ms after which a connection resets the retry delay
const LONGEST_RETRY = 30_000 // ms

const now = () => performance.now()
const say = text => process.stderr.write(text + '\n')
const host = addr => addr.slice(0, addr.lastIndexOf(':')).toLowerCase()
const random = (from, to) => from + Math.random() * (to - from)

const [home = '127.0.0.1:9000', hello = '{}'] = process.argv.slice(2)
const terms = { // until WELCOME
  beats: 'client', beat_ms: 15e3, timeout_ms: 37.5e3, min_beat_ms: 100, spread_ms: 5e3, max_frame: MAX_FRAME,
}
const serverBeats = () => terms.beats === 'server'

let addr = home
let retry = 0 // ms; 0: the server's spread
let sock, buffer, began
let ending // why the connection ends: code, text, ms to stay away, address to go to

// Two clocks: what it sends says when to beat, what it receives whether the server lives.
let sent, pause // the last frame, and the silence after it until the next beat
let heard, asked // the last byte, and the oldest unanswered beat; 0: none
let timer

function connect() {
  say(`connecting to ${addr}`)
  const port = addr.slice(addr.lastIndexOf(':') + 1)
  sock = net.connect({ host: host(addr).replace(/^\[|\]$/g, ''), port, noDelay: true })
  sock.on('data', receive).on('close', closed)
  sock.on('error', e => { ending[1] = e.message })
  sock.on('drain', () => process.stdin.resume())
  began = now()
  buffer = Buffer.alloc(0)
  ending = [3000, 'the server closed the connection']
  send(HELLO, JSON.stringify({ v: 1, ...JSON.parse(hello) })) // is written once connected
  heard = asked = sent
  watch()
}

// send sends a frame, the empty one without an op. Any frame replaces a beat: the next is due
// H ± 10 % later.
function send(op, payload = '') {
  const frame = Buffer.concat([Buffer.from(op ? [0, 0, 0, 0, op] : [0, 0, 0, 0]), Buffer.from(payload)])
  frame.writeUInt32BE(frame.length - 4)
  sent = now()
  pause = Math.max(terms.beat_ms * random(0.9, 1.1), terms.min_beat_ms)
  if (!sock.write(frame)) process.stdin.pause() // until 'drain'
}

const due = () => asked ? asked + DEAD_AFTER : heard + terms.timeout_ms
const wake = () => serverBeats() ? due() : Math.min(due(), sent + pause)

// watch sets the timer. setImmediate lets what has arrived be read before it is judged.
function watch() {
  clearTimeout(timer)
  if (sock.destroyed) return
  timer = setTimeout(() => setImmediate(judge, now()), Math.min(wake() - now(), 60_000))
}

function judge(at) {
  if (asked && at >= asked + DEAD_AFTER) {
    return finish(3012, 'the server is dead: no byte for 10 s after a beat')
  }
  if (at >= wake()) {
    asked ||= at
    send(serverBeats() && PING)
  }
  watch()
}

function finish(...how) {
  ending = how
  if (how[0] === 3012 && !sock.connecting) sock.resetAndDestroy()
  else sock.destroy()
}

function receive(chunk) {
  heard = now()
  asked = 0
  buffer = Buffer.concat([buffer, chunk])
  while (!sock.destroyed && buffer.length >= 4) {
    const end = 4 + buffer.readUInt32BE()
    if (end > 4 + MAX_FRAME) return finish(3511, `a frame of ${end - 4} bytes: is this heartwheel?`)
    if (buffer.length < end) break
    const body = buffer.subarray(4, end)
    buffer = buffer.subarray(end)
    try {
      act(body[0], body.subarray(1))
    } catch (e) {
      finish(3501, e.message)
    }
  }
  watch()
}

function act(op, payload) {
  const json = [WELCOME, CONFIG, GOAWAY].includes(op) && JSON.parse(payload)
  if (op === undefined) {
    if (serverBeats()) send() // otherwise it is the answer to ours
  } else if (op === PING) {
    send(PONG, payload)
  } else if (op === DATA) {
    process.stdout.write(payload + '\n')
  } else if (op === GOAWAY) {
    finish(json.code, json.reason, json.after_ms, json.addr)
  } else if (op === CLOSE) {
    finish(payload.length ? payload.readUInt16BE() : 3000, payload.subarray(2))
  } else if (op === ERROR) {
    say(`refused: ${payload.subarray(2)}`)
  } else if (json) { // what is absent or 0 stays; the first beat comes after H × U(0.5, 1)
    for (const k in terms) if (json[k] && typeof json[k] === typeof terms[k]) terms[k] = json[k]
    pause = terms.beat_ms * random(0.5, 1)
    process.stdin.resume()
    say(`connected: the ${terms.beats} beats every ${terms.beat_ms} ms`)
  } else if (op === 0 || op > 14 && op < 64 || op > 127) {
    finish(3501, `no such op: ${op}`)
  }
}

function closed() {
  clearTimeout(timer)
  process.stdin.pause() // lines wait for the next connection
  const [code, text, after, elsewhere] = ending
  if (!(code >= 3000 && code < 3500 || code >= 4000 && code < 4500)) {
    say(`stopped for good: ${code} ${text}`)
    process.exit(1)
  }
  if (now() - began >= STABLE_AFTER) retry = 0
  const delay = (after || 0) + random(0, retry || terms.spread_ms)
  say(`lost: ${text}; next try in ${(delay / 1000).toFixed(1)} s`)
  addr = elsewhere && host(elsewhere) === host(home) ? elsewhere : home // the token is meant for it alone
  retry = Math.min(2 * retry || 500, LONGEST_RETRY)
  setTimeout(connect, delay)
}

// A longer line is cut: its frame would end the connection for good.
const sendLine = line => send(DATA, Buffer.from(line).subarray(0, terms.max_frame - 1))
createInterface({ input: process.stdin }).on('line', sendLine).pause() // until WELCOME
connect()
