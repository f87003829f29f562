// What a NestJS program does with the code of docs/nestjs.md, and with the options of clients that know nothing of us.
// Prints one line of JSON: what came back.
import { NestFactory } from '@nestjs/core';
import { ClientProxy, ClientProxyFactory, RmqOptions, Transport } from '@nestjs/microservices';
import { lastValueFrom } from 'rxjs';
import { VestnikHttp } from './vestnik.http';
import { VestnikModule } from './vestnik.module';
import { vestnikQueue } from './vestnik.options';
import { QueuedNotification, VestnikQueue } from './vestnik.queue';
import { vestnikTopic } from './vestnik.topic';

const contactIds = ['c1', 'c2', 'c3'];

const notification = (id: string, more: Partial<QueuedNotification> = {}): QueuedNotification => ({
  id,
  channel: 'whatsapp',
  templateId: 't1',
  recipient: '+79990000001',
  context: { contactId: 'c1' },
  priority: 'high',
  retryCount: 0,
  maxRetries: 3,
  ...more,
});

// With the options in `more`, until `use` is done.
async function having<T>(options: RmqOptions, more: object, use: (client: ClientProxy) => Promise<T>): Promise<T> {
  const client = ClientProxyFactory.create({ ...options, options: { ...options.options, ...more } } as RmqOptions);
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

const emit = (client: ClientProxy, pattern: unknown, data: unknown) =>
  lastValueFrom(client.emit(pattern, data), { defaultValue: null });

// What a call was refused with.
const refusal = (call: Promise<unknown>) => call.then((answer) => ({ answer }), (error) => ({ error }));

async function throughOne(client: ClientProxy, name: string) {
  const queue = new VestnikQueue(client);
  const answers = [];
  for (let n = 0; n < 3; n += 1) answers.push(await queue.acceptNow(notification(`${name}-send-${n}`)));
  return {
    emitted: await queue.queueNotification(notification(`${name}-emit`)),
    bulk: await queue.sendWhatsAppBulk({ templateId: 't1', contactIds }),
    answers,
    again: await queue.acceptNow(notification(`${name}-send-0`)),
    refused: await refusal(queue.acceptNow(notification(`${name}-refused`, { templateId: 'none' }))),
  };
}

async function main() {
  const app = await NestFactory.createApplicationContext(VestnikModule, { logger: false });
  const http = app.get(VestnikHttp);
  const over = {
    now: await http.sendWhatsAppNow({ templateId: 't1', phoneNumber: '+79990000001', contactId: 'c1' }),
    bulk: await http.sendWhatsAppBulk({ templateId: 't1', contactIds }),
    auto: await http.sendWhatsAppAuto({ templateId: 't1', recipients: [{ phoneNumber: '+79990000009', contactId: 'c2' }] }),
    refused: await refusal(http.sendWhatsAppNow({ templateId: 'none', phoneNumber: '+79990000001' })).then((end: any) => end.error?.message),
  };
  const scheduled = new Date(Date.now() + 3_600_000);
  const module = await app.get(VestnikQueue).sendWhatsAppBulk({ templateId: 't1', contactIds, scheduled });

  // Word for word what a module of a team that knows nothing of us has.
  const seed: RmqOptions = {
    transport: Transport.RMQ,
    options: {
      urls: [process.env.RABBITMQ_URL ?? 'amqp://localhost:5672'],
      queue: 'notifications',
      queueOptions: { durable: true },
    },
  };
  await having(seed, {}, (client) => emit(client, 'whatsapp.send', { ...notification('seed-emit'), queuedAt: new Date() }));

  const queue = await having(vestnikQueue, {}, (client) => throughOne(client, 'queue'));
  const topic = await having(vestnikTopic, {}, (client) => throughOne(client, 'topic'));
  await having(vestnikTopic, {}, (client) => emit(client, 'sms.send.low', notification('topic-low', { channel: 'sms', priority: 'low' })));

  // As users with few rights.
  const byQueue = { urls: [process.env.QUEUE_PRODUCER_URL], noAssert: true };
  const byTopic = { urls: [process.env.TOPIC_PRODUCER_URL] };
  const fewRights = [
    await having(vestnikQueue, byQueue, (client) => new VestnikQueue(client).acceptNow(notification('queue-few'))),
    await having(vestnikTopic, byTopic, (client) => new VestnikQueue(client).acceptNow(notification('topic-few'))),
  ];

  const poison = await having(vestnikQueue, {}, async (client) => {
    await emit(client, 'notification.dlq', notification('dlq'));
    await emit(client, { cmd: 'whatsapp.send' }, [1]);
    return refusal(lastValueFrom(client.send('pigeon.send', notification('pigeon'))));
  });
  await having(vestnikTopic, {}, (client) => emit(client, 'pigeon.send', notification('pigeon')));
  await app.close();
  console.log(JSON.stringify({ http: over, module, queue, topic, fewRights, poison }));
}

main().catch((error) => {
  console.error(error ?? 'rejected, and with nothing');
  process.exit(1);
});
