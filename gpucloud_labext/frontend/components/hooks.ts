/** What components share: the language, whether anybody can see them, resources, and actions. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { nullTranslator } from '@jupyterlab/translation';
import { createContext, useCallback, useContext, useEffect, useState } from 'react';
import { useSyncExternalStore } from 'react';

import type { ApiError } from '../api/client';
import { asApiError, type Resource } from '../resource';
import { DOMAIN } from '../tokens';

export const TransContext = createContext<TranslationBundle>(nullTranslator.load(DOMAIN));

/** Is the widget around shown? Nothing is polled for what nobody sees. */
export const VisibleContext = createContext(true);

export function useTrans(): TranslationBundle {
  return useContext(TransContext);
}

/** The state of a resource, which is kept fresh while the component is shown. */
export function useResource<T>(resource: Resource<T>): Resource.State<T> {
  const visible = useContext(VisibleContext);
  useEffect(() => {
    if (!visible) {
      return undefined;
    }
    const watcher = resource.watch();
    return () => watcher.dispose();
  }, [resource, visible]);
  const subscribe = useCallback(
    (listener: () => void) => {
      resource.changed.connect(listener);
      return () => {
        resource.changed.disconnect(listener);
      };
    },
    [resource]
  );
  return useSyncExternalStore(subscribe, () => resource.snapshot);
}

export interface Action<A extends unknown[]> {
  readonly busy: boolean;
  readonly error: ApiError | null;
  /** Does it; resolves to whether it went well. */
  run(...args: A): Promise<boolean>;
  /** Forgets the failure. */
  clear(): void;
}

/** Something that a button does: one at a time, its failure kept to be shown. */
export function useAction<A extends unknown[]>(act: (...args: A) => Promise<void>): Action<A> {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const run = async (...args: A): Promise<boolean> => {
    setBusy(true);
    setFailure(null);
    try {
      await act(...args);
      return true;
    } catch (reason) {
      setFailure(asApiError(reason));
      return false;
    } finally {
      setBusy(false);
    }
  };
  return {
    busy,
    error: failure,
    run,
    clear: () => setFailure(null)
  };
}
