// Checks of tokens: the wrong ones are refused with the right codes, the right ones are renewed in time.

import assert from 'node:assert/strict';
import { connectionToken, sign, subscriptionToken } from './backend.js';
import { Tokens, check } from './scene.js';

/** Long enough for a token to be still good when the server of a busy machine sees it. */
const TTL_S = 2;

check('expired_token', async scene => {
  const user = scene.user('ann');
  const tokens = new Tokens(() => connectionToken(user, { ttlS: -60 }), () => connectionToken(user, { ttlS: 600 }));
  const peer = await scene.connected('ann', { getToken: tokens.get });
  assert.equal(tokens.asked, 2);
  assert.deepEqual(peer.diary.all('error').map(context => context.error.code), [109]);
});

check('expired_token_with_a_subscription', async scene => {
  const user = scene.user('ann');
  const tokens = new Tokens(() => connectionToken(user, { ttlS: -60 }), () => connectionToken(user));
  const peer = scene.peer('ann', { getToken: tokens.get });
  const room = peer.room(scene.channel, { token: scene.token() });
  room.subscription.subscribe();
  await peer.connect();
  await room.diary.wait('subscribed');
  assert.deepEqual(peer.diary.all('disconnected'), []);
});

async function refused(scene, token, code) {
  const peer = scene.peer('ann', { token });
  peer.client.connect();
  await peer.waitRefused(code);
}

check('forged_token', scene => refused(scene, sign({ sub: 'ann' }, { secret: 'another secret' }), 3500));

check('unsigned_token', scene => refused(scene, sign({ sub: 'ann' }, { alg: 'none' }), 3500));

check('token_of_another_algorithm', scene => refused(scene, sign({ sub: 'ann' }, { alg: 'RS256' }), 3500));

check('garbage_token', scene => refused(scene, 'no.jwt', 3500));

check('subscription_token_to_connect', scene => refused(scene, scene.token(), 3500));

check('missing_token', scene => refused(scene, '', 3501));

/** The subscription is refused with an error, and the connection lives on. */
async function subscribeRefused(scene, code, options = {}) {
  const peer = await scene.connected();
  const room = peer.room(scene.channel, options);
  room.subscription.subscribe();
  await room.diary.wait('unsubscribed', { code });
  await peer.subscribe(scene.small);
}

/** The attempt ends the connection for good. */
async function subscribeDisconnected(scene, code, token) {
  const peer = await scene.connected();
  peer.room(scene.channel, { token }).subscription.subscribe();
  await peer.waitRefused(code);
}

check('missing_subscription_token', scene => subscribeRefused(scene, 103));

check('forged_subscription_token', scene => {
  const claims = { sub: scene.user('ann'), channel: scene.channel };
  return subscribeRefused(scene, 103, { token: sign(claims, { secret: 'another secret' }) });
});

check('connection_token_to_subscribe', scene =>
  subscribeRefused(scene, 103, { token: connectionToken(scene.user('ann')) }));

check('subscription_token_of_another_channel', scene =>
  subscribeDisconnected(scene, 3500, scene.token('ann', { channel: 'elsewhere' })));

check('subscription_token_of_another_user', scene => subscribeDisconnected(scene, 3500, scene.token('eve')));

check('expired_subscription_token', async scene => {
  const peer = await scene.connected();
  const tokens = new Tokens(() => scene.token('ann', { ttlS: -60 }), () => scene.token('ann', { ttlS: 600 }));
  const room = await peer.subscribe(scene.channel, { getToken: tokens.get });
  assert.equal(tokens.asked, 2);
  assert.deepEqual(room.diary.all('error').map(context => context.error.code), [109]);
});

check('private_channel', async scene => {
  const peer = await scene.connected();
  const channel = `$small:${scene.name}`;
  const room = peer.room(channel);
  room.subscription.subscribe();
  await room.diary.wait('unsubscribed', { code: 103 });
  peer.client.removeSubscription(room.subscription);
  await peer.subscribe(channel, { token: scene.token('ann', { channel }) });
});

check('refresh', async scene => {
  const tokens = new Tokens(() => connectionToken(scene.user('ann'), { ttlS: TTL_S }));
  const peer = await scene.connected('ann', { getToken: tokens.get, port: scene.hasty.port });
  const room = await peer.subscribe(scene.channel, { token: scene.token() });
  await tokens.waitAsked(4);
  await scene.hasty.publish(scene.channel, 'still here');
  await room.waitHeard('still here');
  assert.deepEqual(new Set(peer.diary.entries.map(([kind]) => kind)),
    new Set(['connecting', 'connected', 'subscribed', 'join']));
  assert.equal(peer.diary.all('connected').length, 1);
});

check('refresh_with_expired_token', async scene => {
  const user = scene.user('ann');
  const tokens = new Tokens(
    () => connectionToken(user, { ttlS: TTL_S }),
    () => connectionToken(user, { ttlS: -60 }),
    () => connectionToken(user),
  );
  const peer = await scene.connected('ann', { getToken: tokens.get });
  await peer.waitLost(3005);
  await peer.diary.wait('connected', { number: 2 });
});

check('refresh_for_another_user', async scene => {
  const tokens = new Tokens(
    () => connectionToken(scene.user('ann'), { ttlS: TTL_S }), () => connectionToken('eve'),
  );
  const peer = await scene.connected('ann', { getToken: tokens.get });
  await peer.waitRefused(3500);
});

check('connection_expiry', async scene => {
  const tokens = new Tokens(
    () => connectionToken(scene.user('ann'), { ttlS: TTL_S }),
    new Error('the backend is down'),
    () => connectionToken(scene.user('ann')),
  );
  const peer = await scene.connected('ann', { getToken: tokens.get, port: scene.hasty.port });
  await peer.waitLost(3005);
  await peer.diary.wait('connected', { number: 2 });
});

check('sub_refresh', async scene => {
  const peer = await scene.connected('ann', { port: scene.hasty.port });
  const tokens = new Tokens(() => scene.token('ann', { ttlS: TTL_S }));
  const room = await peer.subscribe(scene.channel, { getToken: tokens.get });
  await tokens.waitAsked(4);
  await scene.hasty.publish(scene.channel, 'still here');
  await room.waitHeard('still here');
  assert.deepEqual(new Set(room.diary.entries.map(([kind]) => kind)),
    new Set(['subscribing', 'subscribed', 'publication', 'join']));
  assert.equal(room.diary.all('subscribed').length, 1);
});

check('sub_refresh_with_expired_token', async scene => {
  const peer = await scene.connected();
  const tokens = new Tokens(
    () => scene.token('ann', { ttlS: TTL_S }),
    () => scene.token('ann', { ttlS: -60 }),
    () => scene.token('ann', { ttlS: 600 }),
  );
  const room = await peer.subscribe(scene.channel, { getToken: tokens.get });
  await peer.waitLost(3006);
  await room.diary.wait('subscribed', { number: 2 });
});

check('sub_refresh_for_another_user', async scene => {
  const peer = await scene.connected();
  const tokens = new Tokens(
    () => scene.token('ann', { ttlS: TTL_S }), () => subscriptionToken('eve', scene.channel),
  );
  await peer.subscribe(scene.channel, { getToken: tokens.get });
  await peer.waitRefused(3500);
});

check('sub_refresh_without_channel', async scene => {
  const peer = await scene.connected();
  const token = scene.token('ann', { ttlS: 600 });
  await peer.subscribe(scene.channel, { token });
  const rejection = await new Promise((resolve, reject) => {
    peer.client._call({ sub_refresh: { token } }).then(reject, resolve);
  });
  assert.equal(rejection.error.code, 107);
  rejection.next();
  await peer.subscribe(scene.small);
});

check('subscription_expiry', async scene => {
  const peer = await scene.connected('ann', { port: scene.hasty.port });
  const tokens = new Tokens(
    () => scene.token('ann', { ttlS: TTL_S }), new Error('the backend is down'), () => scene.token(),
  );
  const room = await peer.subscribe(scene.channel, { getToken: tokens.get });
  await room.diary.wait('subscribing', { code: 2501 });
  await scene.hasty.publish(scene.channel, 'meanwhile');
  await room.diary.wait('subscribed', { number: 2 });
  await room.waitHeard('meanwhile');
});
