{{/* Name of everything: the release's, with the chart's where it does not say so itself. */}}
{{- define "binworks.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "binworks.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "binworks.labels" -}}
{{ include "binworks.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "binworks.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "binworks.stateClaim" -}}
{{ .Values.state.existingClaim | default (printf "%s-state" (include "binworks.fullname" .)) }}
{{- end }}

{{- define "binworks.storeClaim" -}}
{{ .Values.store.existingClaim | default (printf "%s-store" (include "binworks.fullname" .)) }}
{{- end }}

{{/* What all pods have in common: no root, no token of the cluster, nothing writable but the volumes. */}}
{{- define "binworks.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.user }}
  runAsGroup: {{ .Values.group }}
  fsGroup: {{ .Values.group }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
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
     gives its processes (service/environment.py, deploy/local.py); a test compares them. */}}
{{- define "binworks.environment" -}}
- {name: HOME, value: /tmp}
- {name: MPLCONFIGDIR, value: /tmp/matplotlib}
- {name: BINWORKS_KERNEL_CACHE, value: /tmp/kernels}
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
- {name: DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED, value: "False"}
{{- end }}

{{- define "binworks.dataMounts" -}}
- {name: scratch, mountPath: /tmp}
- {name: store, mountPath: /var/lib/binworks-store}
{{- range .Values.data }}
- {name: data-{{ .name }}, mountPath: {{ .mountPath }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "binworks.dataVolumes" -}}
- name: scratch
  emptyDir: {}
- name: store
  persistentVolumeClaim: {claimName: {{ include "binworks.storeClaim" . }}}
{{- range .Values.data }}
- name: data-{{ .name }}
  {{- toYaml .volume | nindent 2 }}
{{- end }}
{{- end }}
