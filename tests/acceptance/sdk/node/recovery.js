// Checks of recovery: after an interruption nothing is lost or duplicated, or `recovered` is false.

import assert from 'node:assert/strict';
import { connectionToken } from './backend.js';
import { Tokens, check } from './scenario.js';

const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

/** The second `subscribed` event of the subscription, which says whether recovery succeeded. */
async function back(room, recovered) {
  const context = await room.eventLog.wait('subscribed', { number: 2 });
  assert.ok(context.wasRecovering);
  assert.equal(context.recovered, recovered);
  return context;
}

check('recovery_after_cut', async scenario => {
  const proxy = await scenario.proxy();
  const [room, other] = [await scenario.joined('ann', { port: proxy.port }), await scenario.joined('bob')];
  await other.publish('before');
  await room.waitPublications('before');
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  for (const number of range(0, 40)) {
    await other.publish(number);
  }
  await scenario.backend.publish(scenario.channel, 'backend');
  proxy.restore();
  await back(room, true);
  await room.waitPublications('before', ...range(0, 40), 'backend');
  await other.publish('after');
  await room.waitPublications('before', ...range(0, 40), 'backend', 'after');
  assert.deepEqual(room.eventLog.all('publication').map(publication => publication.offset), range(1, 44));
});

check('recovery_of_nothing', async scenario => {
  const proxy = await scenario.proxy();
  const room = await scenario.joined('ann', { port: proxy.port });
  await scenario.backend.publish(scenario.channel, 1);
  await room.waitPublications(1);
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  proxy.restore();
  await back(room, true);
  await scenario.backend.publish(scenario.channel, 2);
  await room.waitPublications(1, 2);
});

check('recovery_while_publishing', async scenario => {
  const proxy = await scenario.proxy();
  const room = await scenario.joined('ann', { port: proxy.port });
  for (const number of range(0, 60)) {
    if (number % 20 === 10) {
      proxy.cut();
    } else if (number % 20 === 15) {
      proxy.restore();
    }
    await scenario.backend.publish(scenario.channel, number);
  }
  await room.waitPublications(...range(0, 60));
  assert.ok(room.eventLog.all('subscribed').slice(1).every(context => context.recovered));
});

check('recovery_in_small_history', async scenario => {
  const proxy = await scenario.proxy();
  const room = await scenario.joined('ann', { port: proxy.port, channel: scenario.small });
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  await scenario.backend.publish(scenario.small, 'a', 'b');
  proxy.restore();
  await back(room, true);
  await room.waitPublications('a', 'b');
});

check('large_recovery', async scenario => {
  const proxy = await scenario.proxy();
  const room = await scenario.joined('ann', { port: proxy.port });
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  const texts = range(0, 30).map(number => `${number} ${'x'.repeat(40_000)}`);
  await scenario.backend.publish(scenario.channel, ...texts);
  proxy.restore();
  await back(room, true);
  await scenario.backend.publish(scenario.channel, 'after');
  await room.waitPublications(...texts, 'after');
  assert.deepEqual(room.eventLog.all('publication').map(publication => publication.offset), range(1, 32));
});

check('unrecoverable', async scenario => {
  const proxy = await scenario.proxy();
  const room = await scenario.joined('ann', { port: proxy.port, channel: scenario.small });
  await scenario.backend.publish(scenario.small, 'before');
  await room.waitPublications('before');
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  await scenario.backend.publish(scenario.small, 'a', 'b', 'c');
  proxy.restore();
  const context = await back(room, false);
  assert.equal(context.streamPosition.offset, 4);
  await scenario.backend.publish(scenario.small, 'after');
  await room.waitPublications('before', 'after');
});

check('history_removed', async scenario => {
  const proxy = await scenario.proxy();
  const room = await scenario.joined('ann', { port: proxy.port });
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  await scenario.backend.publish(scenario.channel, 'lost');
  await scenario.backend.call('history_remove', { channel: scenario.channel });
  proxy.restore();
  await back(room, false);
});

check('state_invalidated', async scenario => {
  const tokens = new Tokens(() => connectionToken(scenario.user('ann')));
  const peer = await scenario.connected('ann', { getToken: tokens.get });
  const room = await peer.subscribe(scenario.channel, { getToken: async () => scenario.token() });
  await scenario.backend.publish(scenario.channel, 'before');
  await room.waitPublications('before');
  await scenario.backend.call('disconnect', {
    user: scenario.user('ann'), disconnect: { code: 3014, reason: 'stale state' },
  });
  await back(room, false);
  assert.equal(tokens.asked, 2);
});

check('get_state', async scenario => {
  const peer = await scenario.connected();
  await scenario.backend.publish(scenario.channel, 'a', 'b');
  const { epoch } = await scenario.backend.call('history', { channel: scenario.channel });
  const positions = [{ offset: 1, epoch: 'foreign' }, { offset: 1, epoch }];
  let asked = 0;
  const getState = async () => positions[asked++];
  const room = await peer.subscribe(scenario.channel, { token: scenario.token(), getState });
  assert.equal(asked, 2);
  await room.waitPublications('b');
});

check('half_open_connection', async scenario => {
  const proxy = await scenario.proxy(scenario.fast);
  const room = await scenario.joined('ann', { port: proxy.port, maxServerPingDelay: 300 });
  await scenario.fast.publish(scenario.channel, 'before');
  await room.waitPublications('before');
  proxy.mute({ upstream: true, downstream: true });
  await scenario.fast.publish(scenario.channel, 'unheard');
  await room.peer.waitLost(2);
  await back(room, true);
  await room.waitPublications('before', 'unheard');
});

check('lost_pongs', async scenario => {
  const proxy = await scenario.proxy(scenario.fast);
  const room = await scenario.joined('ann', { port: proxy.port });
  proxy.mute({ upstream: true });
  await room.peer.waitLost(3012);
  await back(room, true);
});

check('personal_channel_recovery', async scenario => {
  const proxy = await scenario.proxy();
  const peer = await scenario.connected('42', { port: proxy.port });
  const channel = `#${scenario.user('42')}`;
  await peer.eventLog.wait('subscribed', { channel });
  await scenario.backend.publish(channel, 'before');
  await peer.eventLog.wait('publication', { channel });
  proxy.cut();
  await peer.eventLog.wait('subscribing', { channel });
  await scenario.backend.publish(channel, ...range(0, 5));
  proxy.restore();
  const context = await peer.eventLog.wait('subscribed', { number: 2, channel });
  assert.ok(context.wasRecovering && context.recovered);
  await peer.eventLog.wait('publication', { number: 6 });
  const heard = peer.eventLog.all('publication').map(publication => peer.decode(publication.data));
  assert.deepEqual(heard, ['before', ...range(0, 5)]);
});
