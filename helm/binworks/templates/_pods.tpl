{{/* What all pods have in common: no root, no token of the cluster, nothing writable but the volumes. Called with (list $ values). */}}
{{- define "binworks.pod" -}}
{{- $root := index . 0 }}{{- $component := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $root.Values.user }}
  runAsGroup: {{ $root.Values.group }}
  fsGroup: {{ $root.Values.group }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $component.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Pods of one kind on different nodes, if there are some. Called with (list $ component). */}}
{{- define "binworks.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "binworks.selector" (index . 0) | nindent 8 }}
        app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "binworks.container" -}}
image: {{ include "binworks.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Caches and scratch go to an empty volume: the image's own file system is read-only. The rest is what `binworks up`
     gives its processes (service/environment.py, deploy/local.py, deploy/tls.py); a test compares them. */}}
{{- define "binworks.environment" -}}
- {name: HOME, value: /tmp}
- {name: MPLCONFIGDIR, value: /tmp/matplotlib}
- {name: PYTHONSAFEPATH, value: "1"}
- {name: OMP_NUM_THREADS, value: "1"}
- {name: MKL_NUM_THREADS, value: "1"}
- {name: OPENBLAS_NUM_THREADS, value: "1"}
- {name: MALLOC_TRIM_THRESHOLD_, value: "65536"}
- {name: MALLOC_MMAP_THRESHOLD_, value: "33554432"}
- {name: MALLOC_ARENA_MAX, value: "1"}
- {name: XRD_CONNECTIONWINDOW, value: "10"}
- {name: XRD_CONNECTIONRETRY, value: "3"}
- {name: XRD_REQUESTTIMEOUT, value: "60"}
- {name: XRD_STREAMTIMEOUT, value: "30"}
- {name: XRD_TIMEOUTRESOLUTION, value: "1"}
- {name: XRD_STREAMERRORWINDOW, value: "0"}
- {name: DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES, value: "0"}
- {name: DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT, value: 30s}
- {name: DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP, value: 15s}
- {name: DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL, value: 60s}
- {name: DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED, value: "False"}
{{- if ne .Values.tls.source "none" }}
- {name: DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION, value: "True"}
- {name: DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION, value: "1.3"}
{{- end }}
{{- end }}

{{/* What whoever reads and writes the store needs to know of a bucket. */}}
{{- define "binworks.storeEnvironment" -}}
{{- with .Values.store.s3 }}
{{- if .url }}
- {name: AWS_REGION, value: {{ .region | quote }}}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .allowHttp }}
- {name: AWS_ALLOW_HTTP, value: "true"}
{{- end }}
{{- if .secret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: AWS_ACCESS_KEY_ID}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: AWS_SECRET_ACCESS_KEY}
- name: AWS_SESSION_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: AWS_SESSION_TOKEN, optional: true}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "binworks.dataMounts" -}}
- {name: scratch, mountPath: /tmp}
{{- if not .Values.store.s3.url }}
- {name: store, mountPath: /var/lib/binworks-store}
{{- end }}
{{- range .Values.data }}
- {name: data-{{ .name }}, mountPath: {{ .mountPath }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "binworks.dataVolumes" -}}
{{- if not .Values.store.s3.url }}
- name: store
  persistentVolumeClaim: {claimName: {{ include "binworks.claim" (list . "store") }}}
{{- end }}
{{- range .Values.data }}
- name: data-{{ .name }}
  {{- toYaml .volume | nindent 2 }}
{{- end }}
{{- end }}

{{/* The certificate of a role, where deploy/tls.py looks for it. Called with (list $ role). */}}
{{- define "binworks.tlsMount" -}}
{{- if ne (index . 0).Values.tls.source "none" }}
- {name: tls, mountPath: /etc/binworks/tls/{{ index . 1 }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "binworks.tlsVolume" -}}
{{- if ne (index . 0).Values.tls.source "none" }}
- name: tls
  secret:
    secretName: {{ include "binworks.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{/* Options of a Dask process. Called with (list $ role). */}}
{{- define "binworks.tlsOptions" -}}
{{- if ne (index . 0).Values.tls.source "none" }}
{{- $folder := printf "/etc/binworks/tls/%s" (index . 1) }}
- --tls-ca-file
- {{ $folder }}/ca.crt
- --tls-cert
- {{ $folder }}/tls.crt
- --tls-key
- {{ $folder }}/tls.key
{{- end }}
{{- end }}

{{/* The volume with credentials of owners of jobs; empty if there is none. */}}
{{- define "binworks.credentials" -}}
{{- if .Values.credentials.existingSecret -}}
secret: {secretName: {{ .Values.credentials.existingSecret }}, defaultMode: 0440}
{{- else -}}
{{- with .Values.credentials.volume }}{{ toYaml . }}{{ end -}}
{{- end -}}
{{- end }}
