// Two clients log in over the WebSocket that host-meta names, become contacts and exchange a message; then one of them loses its
// connection and resumes. Arguments: the server's HTTP address, the domain, the password. Prints one line of JSON.
import * as XMPP from 'stanza';

const [base, domain, password] = process.argv.slice(2);

const meta = await (await fetch(`${base}/.well-known/host-meta.json`)).json();
const url = meta.links.find((l) => l.rel === 'urn:xmpp:alt-connections:websocket').href;

// once waits for an event that the condition holds for.
const once = (client, event, holds = () => true) =>
  new Promise((resolve) => {
    const heard = (...args) => {
      if (holds(...args)) {
        client.off(event, heard);
        resolve(args[0]);
      }
    };
    client.on(event, heard);
  });

async function login(name) {
  const client = XMPP.createClient({
    jid: `${name}@${domain}`, password, resource: 'web', autoReconnect: false,
    transports: { websocket: url, bosh: false },
  });
  client.on('raw', (way, data) => process.env.WIRE && console.error(name, way, data));
  client.on('subscribe', (p) => client.acceptSubscription(p.from));
  client.on('stream:error', (e) => fail(`${name}: ${JSON.stringify(e)}`));
  client.on('auth:failed', () => fail(`${name} could not authenticate`));
  const started = once(client, 'session:started');
  client.connect();
  await started;
  await client.getRoster();
  client.sendPresence();
  return client;
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

const alice = await login('alice');
const bob = await login('bob');
const met = [
  once(alice, 'subscribed'), once(bob, 'subscribed'),
];
alice.subscribe(`bob@${domain}`);
bob.subscribe(`alice@${domain}`);
await Promise.all(met);

const heard = once(bob, 'message', (m) => m.body !== undefined);
alice.sendMessage({ to: `bob@${domain}`, type: 'chat', body: 'hello <over> WebSocket ☎' });
const message = await heard;
const answered = once(alice, 'message', (m) => m.body !== undefined);
bob.sendMessage({ to: message.from, type: 'chat', body: 'heard you' });
const answer = await answered;

// The connection breaks without a word; what is said meanwhile is there after the resumption.
const gone = once(bob, 'disconnected');
const resumed = once(bob, 'stream:management:resumed');
bob.transport.socket.terminate?.() ?? bob.transport.socket.close();
await gone;
alice.sendMessage({ to: `bob@${domain}`, type: 'chat', body: 'while you were away' });
const missed = once(bob, 'message', (m) => m.body === 'while you were away');
bob.connect();
await resumed;

const out = {
  from: message.from, body: message.body, answer: answer.body, missed: (await missed).body, jid: bob.jid,
};
const ended = [once(alice, 'disconnected'), once(bob, 'disconnected')];
alice.disconnect();
bob.disconnect();
await Promise.all(ended);
console.log(JSON.stringify(out));
process.exit(0);
