// Checks of tokens: invalid tokens are refused with the right codes, valid tokens are refreshed in time.

import assert from 'node:assert/strict';
import { connectionToken, sign, subscriptionToken } from './backend.js';
import { Tokens, check } from './scenario.js';

/** Long enough that a token is still valid when a server on a busy machine verifies it. */
const TTL_S = 2;

check('expired_token', async scenario => {
  const user = scenario.user('ann');
  const tokens = new Tokens(() => connectionToken(user, { ttlS: -60 }), () => connectionToken(user, { ttlS: 600 }));
  const peer = await scenario.connected('ann', { getToken: tokens.get });
  assert.equal(tokens.asked, 2);
  assert.deepEqual(peer.eventLog.all('error').map(context => context.error.code), [109]);
});

check('expired_token_with_a_subscription', async scenario => {
  const user = scenario.user('ann');
  const tokens = new Tokens(() => connectionToken(user, { ttlS: -60 }), () => connectionToken(user));
  const peer = scenario.peer('ann', { getToken: tokens.get });
  const room = peer.room(scenario.channel, { token: scenario.token() });
  room.subscription.subscribe();
  await peer.connect();
  await room.eventLog.wait('subscribed');
  assert.deepEqual(peer.eventLog.all('disconnected'), []);
});

async function refused(scenario, token, code) {
  const peer = scenario.peer('ann', { token });
  peer.client.connect();
  await peer.waitRefused(code);
}

check('forged_token', scenario => refused(scenario, sign({ sub: 'ann' }, { secret: 'another secret' }), 3500));

check('unsigned_token', scenario => refused(scenario, sign({ sub: 'ann' }, { alg: 'none' }), 3500));

check('token_of_another_algorithm', scenario => refused(scenario, sign({ sub: 'ann' }, { alg: 'RS256' }), 3500));

check('malformed_token', scenario => refused(scenario, 'no.jwt', 3500));

check('subscription_token_to_connect', scenario => refused(scenario, scenario.token(), 3500));

check('missing_token', scenario => refused(scenario, '', 3501));

/** The server refuses the subscription with an error, and the connection continues. */
async function subscribeRefused(scenario, code, options = {}) {
  const peer = await scenario.connected();
  const room = peer.room(scenario.channel, options);
  room.subscription.subscribe();
  await room.eventLog.wait('unsubscribed', { code });
  await peer.subscribe(scenario.small);
}

/** The attempt ends the connection, and the client does not reconnect. */
async function subscribeDisconnected(scenario, code, token) {
  const peer = await scenario.connected();
  peer.room(scenario.channel, { token }).subscription.subscribe();
  await peer.waitRefused(code);
}

check('missing_subscription_token', scenario => subscribeRefused(scenario, 103));

check('forged_subscription_token', scenario => {
  const claims = { sub: scenario.user('ann'), channel: scenario.channel };
  return subscribeRefused(scenario, 103, { token: sign(claims, { secret: 'another secret' }) });
});

check('connection_token_to_subscribe', scenario =>
  subscribeRefused(scenario, 103, { token: connectionToken(scenario.user('ann')) }));

check('subscription_token_of_another_channel', scenario =>
  subscribeDisconnected(scenario, 3500, scenario.token('ann', { channel: 'elsewhere' })));

check('subscription_token_of_another_user', scenario => subscribeDisconnected(scenario, 3500, scenario.token('eve')));

check('expired_subscription_token', async scenario => {
  const peer = await scenario.connected();
  const tokens = new Tokens(() => scenario.token('ann', { ttlS: -60 }), () => scenario.token('ann', { ttlS: 600 }));
  const room = await peer.subscribe(scenario.channel, { getToken: tokens.get });
  assert.equal(tokens.asked, 2);
  assert.deepEqual(room.eventLog.all('error').map(context => context.error.code), [109]);
});

check('private_channel', async scenario => {
  const peer = await scenario.connected();
  const channel = `$small:${scenario.name}`;
  const room = peer.room(channel);
  room.subscription.subscribe();
  await room.eventLog.wait('unsubscribed', { code: 103 });
  peer.client.removeSubscription(room.subscription);
  await peer.subscribe(channel, { token: scenario.token('ann', { channel }) });
});

check('refresh', async scenario => {
  const tokens = new Tokens(() => connectionToken(scenario.user('ann'), { ttlS: TTL_S }));
  const peer = await scenario.connected('ann', { getToken: tokens.get, port: scenario.fast.port });
  const room = await peer.subscribe(scenario.channel, { token: scenario.token() });
  await tokens.waitAsked(4);
  await scenario.fast.publish(scenario.channel, 'still here');
  await room.waitPublications('still here');
  assert.deepEqual(new Set(peer.eventLog.entries.map(([kind]) => kind)),
    new Set(['connecting', 'connected', 'subscribed', 'join']));
  assert.equal(peer.eventLog.all('connected').length, 1);
});

check('refresh_with_expired_token', async scenario => {
  const user = scenario.user('ann');
  const tokens = new Tokens(
    () => connectionToken(user, { ttlS: TTL_S }),
    () => connectionToken(user, { ttlS: -60 }),
    () => connectionToken(user),
  );
  const peer = await scenario.connected('ann', { getToken: tokens.get });
  await peer.waitLost(3005);
  await peer.eventLog.wait('connected', { number: 2 });
});

check('refresh_for_another_user', async scenario => {
  const tokens = new Tokens(
    () => connectionToken(scenario.user('ann'), { ttlS: TTL_S }), () => connectionToken('eve'),
  );
  const peer = await scenario.connected('ann', { getToken: tokens.get });
  await peer.waitRefused(3500);
});

check('connection_expiry', async scenario => {
  const tokens = new Tokens(
    () => connectionToken(scenario.user('ann'), { ttlS: TTL_S }),
    new Error('the backend is down'),
    () => connectionToken(scenario.user('ann')),
  );
  const peer = await scenario.connected('ann', { getToken: tokens.get, port: scenario.fast.port });
  await peer.waitLost(3005);
  await peer.eventLog.wait('connected', { number: 2 });
});

check('sub_refresh', async scenario => {
  const peer = await scenario.connected('ann', { port: scenario.fast.port });
  const tokens = new Tokens(() => scenario.token('ann', { ttlS: TTL_S }));
  const room = await peer.subscribe(scenario.channel, { getToken: tokens.get });
  await tokens.waitAsked(4);
  await scenario.fast.publish(scenario.channel, 'still here');
  await room.waitPublications('still here');
  assert.deepEqual(new Set(room.eventLog.entries.map(([kind]) => kind)),
    new Set(['subscribing', 'subscribed', 'publication', 'join']));
  assert.equal(room.eventLog.all('subscribed').length, 1);
});

check('sub_refresh_with_expired_token', async scenario => {
  const peer = await scenario.connected();
  const tokens = new Tokens(
    () => scenario.token('ann', { ttlS: TTL_S }),
    () => scenario.token('ann', { ttlS: -60 }),
    () => scenario.token('ann', { ttlS: 600 }),
  );
  const room = await peer.subscribe(scenario.channel, { getToken: tokens.get });
  await peer.waitLost(3006);
  await room.eventLog.wait('subscribed', { number: 2 });
});

check('sub_refresh_for_another_user', async scenario => {
  const peer = await scenario.connected();
  const tokens = new Tokens(
    () => scenario.token('ann', { ttlS: TTL_S }), () => subscriptionToken('eve', scenario.channel),
  );
  await peer.subscribe(scenario.channel, { getToken: tokens.get });
  await peer.waitRefused(3500);
});

check('sub_refresh_without_channel', async scenario => {
  const peer = await scenario.connected();
  const token = scenario.token('ann', { ttlS: 600 });
  await peer.subscribe(scenario.channel, { token });
  const rejection = await new Promise((resolve, reject) => {
    peer.client._call({ sub_refresh: { token } }).then(reject, resolve);
  });
  assert.equal(rejection.error.code, 107);
  rejection.next();
  await peer.subscribe(scenario.small);
});

check('subscription_expiry', async scenario => {
  const peer = await scenario.connected('ann', { port: scenario.fast.port });
  const tokens = new Tokens(
    () => scenario.token('ann', { ttlS: TTL_S }), new Error('the backend is down'), () => scenario.token(),
  );
  const room = await peer.subscribe(scenario.channel, { getToken: tokens.get });
  await room.eventLog.wait('subscribing', { code: 2501 });
  await scenario.fast.publish(scenario.channel, 'meanwhile');
  await room.eventLog.wait('subscribed', { number: 2 });
  await room.waitPublications('meanwhile');
});

/** A token with this claim was issued after everything that a check revokes. */
const issuedLater = () => ({ iat: Date.now() / 1000 + 60 });

check('revoked_token', async scenario => {
  const user = scenario.user('ann');
  const tokens = new Tokens(() => connectionToken(user), () => connectionToken(user, issuedLater()));
  const peer = await scenario.connected('ann', { getToken: tokens.get });
  await scenario.backend.call('revoke', { user });
  await peer.waitLost(3005);
  await peer.eventLog.wait('connected', { number: 2 });
  assert.equal(tokens.asked, 2);
});

check('revoked_subscription_token', async scenario => {
  const peer = await scenario.connected();
  const tokens = new Tokens(() => scenario.token(), () => scenario.token('ann', issuedLater()));
  const room = await peer.subscribe(scenario.channel, { getToken: tokens.get });
  await scenario.backend.call('revoke', { user: scenario.user('ann'), channel: scenario.channel });
  await room.eventLog.wait('subscribing', { code: 2501 });
  await scenario.backend.publish(scenario.channel, 'meanwhile');
  await room.eventLog.wait('subscribed', { number: 2 });
  await room.waitPublications('meanwhile');
  assert.equal(tokens.asked, 2);
});
