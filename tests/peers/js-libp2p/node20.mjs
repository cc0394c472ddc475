// js-libp2p 3 asks for Node.js 22. This is all that it misses in Node.js 20.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((onResolve, onReject) => { [resolve, reject] = [onResolve, onReject] })
  return { promise, resolve, reject }
}
