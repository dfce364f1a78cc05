// Two clients log in over the BOSH address that host-meta names, become contacts and exchange messages. Arguments: the server's HTTP
// address, the domain, the password. Prints one line of JSON.
import * as XMPP from 'stanza';

const [base, domain, password] = process.argv.slice(2);

const meta = await (await fetch(`${base}/.well-known/host-meta.json`)).json();
const url = meta.links.find((l) => l.rel === 'urn:xmpp:alt-connections:xbosh').href;

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
    transports: { websocket: false, bosh: url },
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
const met = [once(alice, 'subscribed'), once(bob, 'subscribed')];
alice.subscribe(`bob@${domain}`);
bob.subscribe(`alice@${domain}`);
await Promise.all(met);

const heard = once(bob, 'message', (m) => m.body !== undefined);
alice.sendMessage({ to: `bob@${domain}`, type: 'chat', body: 'hello <over> BOSH ☎' });
const message = await heard;
const answered = once(alice, 'message', (m) => m.body !== undefined);
bob.sendMessage({ to: message.from, type: 'chat', body: 'heard you' });
const answer = await answered;
const all = [];
const many = once(bob, 'message', (m) => m.body !== undefined && all.push(m.body) === 50);
for (let i = 0; i < 50; i++) alice.sendMessage({ to: `bob@${domain}`, type: 'chat', body: `${i}` });
await many;

// One after the other: the library throws if something for a client comes on one connection behind the end of the session on another.
const aliceEnded = once(alice, 'bosh:terminate');
const aliceAway = once(bob, 'unavailable', (p) => p.from.startsWith('alice@'));
alice.disconnect();
await Promise.all([aliceEnded, aliceAway]);
const bobEnded = once(bob, 'bosh:terminate');
bob.disconnect();
await bobEnded;
console.log(JSON.stringify({
  from: message.from, body: message.body, answer: answer.body, jid: bob.jid,
  ordered: all.every((b, i) => b === `${i}`),
}));
process.exit(0);
