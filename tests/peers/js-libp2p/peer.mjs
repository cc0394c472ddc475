// A peer of js-libp2p. It returns what comes on streams of /x/js. Given an address, it opens /x/web there, sends a line, and prints
// what comes back.
import './node20.mjs'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const print = event => console.log(JSON.stringify(event))
const peer = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping() }
})
await peer.handle('/x/js', async stream => {
  for await (const bytes of stream) {
    if (!stream.send(bytes.subarray())) await stream.onDrain()
  }
  await stream.close()
})
print({ event: 'started', peer_id: peer.peerId.toString(), address: peer.getMultiaddrs()[0].decapsulate('/p2p').toString() })
if (process.argv.length > 2) {
  const stream = await peer.dialProtocol(multiaddr(process.argv[2]), '/x/web')
  stream.send(new TextEncoder().encode('from js'))
  await stream.close()
  let text = ''
  for await (const bytes of stream) text += new TextDecoder().decode(bytes.subarray())
  print({ event: 'answered', text })
}
